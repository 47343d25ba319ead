// SPDX-License-Identifier: Apache-2.0
// Reads the block allocation table in pieces, so that no claimed size costs memory, and skips what
// the host file system says is a hole.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "formats/vhd/image.h"

namespace imgfsck::vhd {

class BatReader {
 public:
  // Entries [first, end), as far as the file has them.
  BatReader(const Image& image, uint64_t first, uint64_t end);

  // `values` start at entry `first`; or `values` is empty and `zeros` entries from there are zero.
  struct Run {
    uint64_t first = 0;
    std::span<const uint32_t> values;
    uint64_t zeros = 0;
  };
  // False at the end. Entries on unreadable sectors come as kUnallocated and are listed.
  bool Next(Run* run);
  const std::vector<HostRange>& unreadable() const { return unreadable_; }

 private:
  const Image& image_;
  uint64_t next_, end_;
  ByteVector bytes_;
  std::vector<uint32_t> values_;
  std::vector<HostRange> unreadable_;
};

// Calls use(index, sector) for every entry that is not kUnallocated among [first, end).
template <class Use>
void ForEachBlock(const Image& image, uint64_t first, uint64_t end, const Use& use) {
  BatReader reader(image, first, end);
  for (BatReader::Run run; reader.Next(&run);) {
    for (uint64_t i = 0; i < run.zeros; ++i) use(run.first + i, uint32_t{0});
    for (uint64_t i = 0; i < run.values.size(); ++i) {
      if (run.values[i] != kUnallocated) use(run.first + i, run.values[i]);
    }
  }
}

// One entry; kUnallocated past the end of the table.
Result<uint32_t> BatEntryAt(const ByteSource& source, const Image& image, uint64_t index);

}  // namespace imgfsck::vhd
