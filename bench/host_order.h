// SPDX-License-Identifier: Apache-2.0
// Hands out the clusters of a file that is being laid out: tables and data in the order in which
// they are asked for, each refcount block where the clusters that it counts begin. Knows no image.
#pragma once

#include <cstdint>
#include <vector>

namespace imgfsck::bench {

// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t bound);  // 0 … bound-1; bound below 2^32

 private:
  uint64_t state_;
};

// How many clusters a file has, and what of it is fixed at its start.
struct FilePlan {
  uint64_t fixed = 0;           // header, refcount table and whatever else must be contiguous
  uint64_t table_clusters = 0;  // the refcount table's, inside `fixed`
  uint64_t blocks = 0;          // refcount blocks
  uint64_t total = 0;           // clusters of the file
};
// The least plan for `contiguous` clusters at the start besides the refcount table, and `others`
// besides the refcount blocks behind it.
FilePlan PlanFile(uint64_t contiguous, uint64_t others, uint64_t cluster_size,
                  uint64_t block_entries);

class HostOrder {
 public:
  // `permute`: positions behind the fixed ones map to host clusters by a random permutation.
  HostOrder(const FilePlan& plan, uint64_t block_entries, bool permute, Random random);
  uint64_t Next();  // a host cluster for a table or for data
  const std::vector<uint64_t>& blocks() const {
    return blocks_;
  }  // host clusters, once all is given
  bool complete() const { return position_ == plan_.total && next_block_ == plan_.blocks; }

 private:
  uint64_t HostOf(uint64_t position) const;
  void PlaceBlock();

  FilePlan plan_;
  uint64_t block_entries_;
  uint64_t position_;
  uint64_t next_block_ = 0;
  std::vector<uint64_t> blocks_;
  std::vector<uint32_t> permutation_;  // empty: the order of the file
};

}  // namespace imgfsck::bench
