// SPDX-License-Identifier: Apache-2.0
// A whole new refcount tree, for images whose old one cannot be trusted (closed uncleanly with lazy
// refcounts). The old tree stays in force until the last write.
#include <algorithm>

#include "formats/qcow2/alloc.h"

namespace imgfsck::qcow2 {
namespace {

// The new tree's place: `blocks` refcount blocks from cluster `begin` on, the table behind them.
struct Placement {
  uint64_t begin = 0, blocks = 0, table_clusters = 0;
  uint64_t end() const { return begin + blocks + table_clusters; }
};

// Block numbers that have a count to hold.
std::vector<uint64_t> BlocksInUse(const Geometry& g, const std::vector<uint32_t>& counts) {
  std::vector<uint64_t> used;
  for (uint64_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    used.push_back(i / g.block_entries);
    i = (i / g.block_entries + 1) * g.block_entries - 1;
  }
  return used;
}

}  // namespace

Status Refcounts::Rebuild(const std::vector<uint32_t>& counts) {
  const Geometry& g = geometry_;
  if (std::ranges::any_of(counts, [&](uint32_t count) { return count > g.MaxRefcount(); })) {
    return Error{ErrorCode::kTooLarge, "a cluster has more references than refcounts can hold", {}};
  }
  std::vector<uint64_t> used = BlocksInUse(g, counts);
  const uint64_t first_new = counts.size() / g.block_entries;
  while (!used.empty() && used.back() >= first_new) used.pop_back();
  Placement place{counts.size(), 1, 1};
  while (true) {
    uint64_t last = BlockIndex(place.end() - 1);
    uint64_t blocks = used.size() + last - first_new + 1;
    uint64_t clusters = g.ClustersOf(8 * (last + 4));  // with room to converge
    if (blocks <= place.blocks && clusters <= place.table_clusters) break;
    place.blocks = std::max(place.blocks, blocks);
    place.table_clusters = std::max(place.table_clusters, clusters);
  }
  if (place.table_clusters * g.cluster_size > kMaxRefcountTableBytes) {
    return Error{ErrorCode::kTooLarge, "the image is too large for a refcount table", {}};
  }
  for (uint64_t i = first_new; used.size() < place.blocks; ++i) used.push_back(i);

  std::vector<uint64_t> table(place.table_clusters * g.cluster_size / 8);
  for (uint64_t i = 0; i < used.size(); ++i) {
    ByteVector block(g.cluster_size);
    uint64_t base = used[i] * g.block_entries;
    for (uint64_t entry = 0; entry < g.block_entries; ++entry) {
      uint64_t cluster = base + entry;
      uint64_t count = cluster < counts.size()
                           ? counts[cluster]
                           : uint64_t{cluster >= place.begin && cluster < place.end()};
      if (count != 0) PutCount(block, g.refcount_order, entry, count);
    }
    uint64_t offset = (place.begin + i) * g.cluster_size;
    IMG_RETURN_IF_ERROR(file_->Write(offset, block));
    if (used[i] < table.size()) table[used[i]] = offset;
  }
  blocks_.clear();
  dirty_blocks_.clear();
  releases_.clear();
  hint_ = 0;
  stream_at_ = 0;
  for (uint64_t entry : table_)
    metadata_->fixed.Erase(entry & ~kRefcountTableReserved, g.cluster_size);
  metadata_->fixed.Insert(place.begin * g.cluster_size, place.blocks * g.cluster_size);
  return SwitchTable((place.begin + place.blocks) * g.cluster_size, place.table_clusters,
                     std::move(table));
}

}  // namespace imgfsck::qcow2
