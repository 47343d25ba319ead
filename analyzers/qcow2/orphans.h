// SPDX-License-Identifier: Apache-2.0
// The references that an image's counts speak of and that no table makes: a cluster whose stored
// count is above the computed one has lost somebody who pointed at it. Re-linking takes from this
// stock, so that no cluster is given to more than have lost it.
#pragma once

#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "analyzers/qcow2/state.h"
#include "formats/qcow2/entry.h"

namespace imgfsck::qcow2 {

class Orphans {
 public:
  // Counts in a block that shares its cluster, and that are none, speak of no reference.
  explicit Orphans(const CheckState& state);

  // References to `cluster` that are missing and not yet given back.
  uint64_t Missing(uint64_t cluster) const;
  // Missing(), and nothing at all refers to the cluster.
  bool Lone(uint64_t cluster) const;
  void Take(uint64_t cluster, uint64_t references) { taken_[cluster] += references; }
  // The cluster holds a table, no guest data: it is no longer offered as data.
  void MarkTable(uint64_t cluster) { tables_.insert_or_assign(cluster, true); }
  // `cluster` is about to lose `references` that are wrong. Only a table may claim it: what it
  // holds is not known to be data.
  void Release(uint64_t cluster, uint64_t references) {
    released_[cluster] += references;
    MarkTable(cluster);
  }
  bool IsTaken(uint64_t cluster) const { return taken_.contains(cluster); }
  bool IsTable(uint64_t cluster) const { return tables_.contains(cluster); }

  // Lone clusters of data in [begin, end), ascending, at most `limit` of them.
  std::vector<uint64_t> DataIn(uint64_t begin, uint64_t end, size_t limit) const;

 private:
  const CountRun* Find(uint64_t cluster) const;
  bool Trusted(uint64_t cluster) const {
    return no_counts_.empty() ||
           !no_counts_.contains(cluster / state_.image->geometry.block_entries);
  }

  const CheckState& state_;
  std::set<uint64_t> no_counts_;           // blocks, by index
  std::map<uint64_t, uint64_t> released_;  // references, by cluster
  std::unordered_map<uint64_t, uint64_t> taken_;
  std::unordered_map<uint64_t, bool> tables_;
};

// What a table that nothing refers to would lead to, were it put back. Guest data may look like a
// table by chance or by intent: a table counts for as much as its entries lead to clusters that
// miss a reference.
struct FoundTable {
  uint64_t offset = 0;    // in the file
  uint64_t entries = 0;   // that map something
  uint64_t reclaims = 0;  // of those, that lead to a cluster which misses a reference
  uint64_t first_host = 0, last_host = 0;  // bytes; lowest and highest that it reclaims
  bool counted = false;                    // the image counts the table's own cluster as in use
  bool ordered = false;                    // guest order is host order, nearly everywhere
  // It leads to clusters that are counted once, and no entry has the flag COPIED: no table of the
  // active disk, but one of a snapshot, or of a bitmap. Or it leads to other tables.
  bool bare = false;
  std::vector<uint64_t> slots;  // L1 slots that tables found elsewhere have it in
};

// `entries` is 0 when `bytes` is no L2 table. Fills in what its content says.
FoundTable Appraise(const Image& image, const Orphans& orphans, Bytes bytes);

// The clusters that `entry` uses all miss a reference.
bool Reclaims(const Image& image, const Orphans& orphans, const Entry& entry);

}  // namespace imgfsck::qcow2
