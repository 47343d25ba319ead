// SPDX-License-Identifier: Apache-2.0
#include "bench/host_order.h"

#include <utility>

#include "base/checked.h"
#include "base/result.h"

namespace imgfsck::bench {

uint64_t Random::Next() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

uint64_t Random::Below(uint64_t bound) { return ((Next() >> 32) * bound) >> 32; }

FilePlan PlanFile(uint64_t contiguous, uint64_t others, uint64_t cluster_size,
                  uint64_t block_entries) {
  FilePlan plan;
  for (;;) {
    FilePlan next = plan;
    next.fixed = contiguous + plan.table_clusters;
    next.total = next.fixed + others + plan.blocks;
    next.blocks = DivRoundUp(next.total, block_entries);
    next.table_clusters = DivRoundUp(next.blocks * sizeof(uint64_t), cluster_size);
    bool settled = next.blocks == plan.blocks && next.table_clusters == plan.table_clusters;
    plan = next;
    if (settled) return plan;
  }
}

HostOrder::HostOrder(const FilePlan& plan, uint64_t block_entries, bool permute, Random random)
    : plan_(plan), block_entries_(block_entries), position_(plan.fixed) {
  if (permute) {
    IMG_CHECK(plan.total < uint64_t{1} << 32);
    permutation_.resize(plan.total - plan.fixed);
    for (uint32_t i = 0; i < permutation_.size(); ++i) {
      permutation_[i] = i;
      std::swap(permutation_[i], permutation_[random.Below(uint64_t{i} + 1)]);
    }
  }
  // The blocks for the fixed clusters come first; every other one when its clusters begin.
  for (uint64_t early = DivRoundUp(plan.fixed, block_entries); next_block_ < early;) PlaceBlock();
}

uint64_t HostOrder::HostOf(uint64_t position) const {
  if (permutation_.empty()) return position;
  return plan_.fixed + permutation_[position - plan_.fixed];
}

void HostOrder::PlaceBlock() {
  ++next_block_;
  blocks_.push_back(HostOf(position_++));
}

uint64_t HostOrder::Next() {
  while (next_block_ < plan_.blocks && next_block_ * block_entries_ <= position_) PlaceBlock();
  IMG_CHECK(position_ < plan_.total);
  return HostOf(position_++);
}

}  // namespace imgfsck::bench
