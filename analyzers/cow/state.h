// SPDX-License-Identifier: Apache-2.0
// What a check of a COW image leaves for the repair passes (CheckReport::detail), and walks over
// the sectors that both need.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "analyzers/check.h"
#include "analyzers/common/linked_file.h"
#include "formats/cow/image.h"
#include "io/file.h"

namespace imgfsck::cow {

struct CheckState {
  const Image* image = nullptr;            // owned by the report's rows
  LinkedFile base;                         // looked at from outside
  std::unique_ptr<FileSource> base_bytes;  // opened only with --chain; raw bytes
  std::optional<Header> older;             // of the image that a version 3 header was written over
};

inline const CheckState& StateOf(const CheckReport& report) {
  return *static_cast<const CheckState*>(report.detail.get());
}

// Sectors [first, last) of one kind.
using SectorVisitor = std::function<Status(uint64_t first, uint64_t last)>;

// Runs of stored sectors, ascending.
Status ForEachStored(const Image& image, const SectorVisitor& visit,
                     std::vector<HostRange>* unreadable);
// Stored sectors that lie in holes of the host file, as a crash between bit and data leaves them.
Status ForEachStoredHole(const Image& image, const SectorVisitor& visit);
// Sectors that are not stored, by their bit, but whose place holds bytes that are not zero.
Status ForEachUnmarked(const Image& image, const SectorVisitor& visit);
// Stored sectors that are equal to the base's (missing bytes of the base are zeros).
Status ForEachEqual(const Image& image, const ByteSource& base, const SectorVisitor& visit);

}  // namespace imgfsck::cow
