// SPDX-License-Identifier: Apache-2.0
// What a check of a qcow version 1 image leaves for the repair passes: CheckReport::detail.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "analyzers/check.h"
#include "analyzers/qcow1/range_union.h"
#include "formats/qcow1/image.h"

namespace imgfsck::qcow1 {

// What became of an L1 entry's table.
enum class TableFate : uint8_t {
  kWalked,
  kShared,       // an earlier L1 entry names the same table, which was walked for that one
  kImplausible,  // no mapping table stands there
  kFlag,
  kPastEof,
  kSkipped,  // tables overlap too much: not looked at
};

enum class ClaimKind : uint8_t { kHeader, kXenHeader, kName, kL1, kL2, kData, kCompressed };

// A host range and who claims it.
struct Claim {
  uint64_t begin = 0, end = 0;
  uint64_t guest = 0;  // kL2: the first guest byte it maps; kData, kCompressed: the cluster's
  ClaimKind kind = ClaimKind::kData;
  bool metadata() const { return kind < ClaimKind::kData; }
};

// A table that nothing points to, but whose clusters nothing else uses.
struct OrphanTable {
  uint64_t offset = 0;
  uint64_t clusters = 0;  // that it maps
};

struct CheckState {
  const Image* image = nullptr;      // owned by the report's rows
  std::vector<TableFate> fates;      // one a slot of image->l1
  RangeUnion space;                  // everything claimed, inside the file
  uint64_t cut_end = 0;              // where the clusters and tables end that its end cuts in two
  RangeUnion beyond;                 // where damaged entries point to behind its end
  std::vector<Claim> conflicts;      // claims that share bytes with another, by begin
  std::vector<OrphanTable> orphans;  // by offset; at most kMaxOrphans
  std::vector<HostRange> unreadable;
};
inline constexpr size_t kMaxOrphans = 1 << 16;

inline const CheckState& StateOf(const CheckReport& report) {
  return *static_cast<const CheckState*>(report.detail.get());
}

std::string StructureName(const Image& image, const Claim& claim);

// An entry in use of a table that was walked.
struct EntryRef {
  size_t slot = 0;     // of image.l1
  uint64_t index = 0;  // in the table
  Entry entry;
  uint64_t HostOffset(const Image& image) const { return image.l1[slot].value + 8 * index; }
  uint64_t Guest(const Image& image) const {
    return image.l1[slot].index * image.geometry.span + index * image.geometry.cluster_size;
  }
};
// Every entry in use, in guest order; shared tables count once.
using EntryVisitor = std::function<Status(const EntryRef&)>;
Status ForEachEntry(const Image& image, const std::vector<TableFate>& fates,
                    const EntryVisitor& visit);

// Guest bytes of a cluster, cut at the end of the disk; empty behind it.
GuestRange ClusterRange(const Image& image, uint64_t guest);

}  // namespace imgfsck::qcow1
