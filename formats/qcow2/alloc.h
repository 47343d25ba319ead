// SPDX-License-Identifier: Apache-2.0
// Reference counts of host clusters, and who gets which cluster (sheet, sections 3 and 13).
//
// Two rules make every moment safe to be interrupted at. Raised counts reach the disk before
// anything that refers to the cluster; lowered ones only after nothing does. So lowering is put
// off: Release() notes it, ApplyReleases() does it once the caller has made the tables durable.
// Until then such a cluster is not handed out again.
#pragma once

#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/units.h"
#include "formats/qcow2/alloc_ranges.h"
#include "formats/qcow2/driver_file.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {

// A count in a refcount block, and the same written (sheet, section 3).
uint64_t CountAt(Bytes block, unsigned order, uint64_t index);
void PutCount(MutableBytes block, unsigned order, uint64_t index, uint64_t value);

struct HostRun {
  uint64_t offset = 0;  // bytes in the file, cluster-aligned
  uint64_t clusters = 0;
};

class Refcounts {
 public:
  // `table`: the refcount table as stored at table_offset. Refcount blocks and tables are entered
  // in `metadata` as they come and go; no allocation may touch what is there. `write_header` is
  // for the header's fields about the table.
  using HeaderWriter = std::function<Status(uint64_t offset, Bytes bytes)>;
  Refcounts(DriverFile* file, const Geometry& g, uint64_t table_offset, std::vector<uint64_t> table,
            MetadataMap* metadata, HeaderWriter write_header);

  Result<uint64_t> Get(uint64_t cluster);
  // One reference more. kTooLarge when the width does not allow it: then copy instead.
  Status Raise(uint64_t cluster);
  Status RaiseSpan(uint64_t offset, uint64_t length);  // every cluster it touches; all or none
  // One reference less, later.
  void Release(uint64_t cluster) { releases_.push_back(cluster); }
  void ReleaseSpan(uint64_t offset, uint64_t length);
  uint64_t ReleasesPending() const { return releases_.size(); }
  // Adds the clusters that nobody uses any more to *freed (may be null).
  Status ApplyReleases(std::vector<uint64_t>* freed);

  // Clusters with count 1 each: 1 to `wanted` that follow one another, at `preferred` (an offset)
  // where that is free, else the first free ones of the file.
  Result<HostRun> Allocate(uint64_t wanted, std::optional<uint64_t> preferred = std::nullopt);
  Result<uint64_t> AllocateExactly(uint64_t clusters);  // the offset of as many in a row
  // Room for `length` (below one cluster) bytes, perhaps behind another stream in a cluster that
  // both then share. Every cluster touched is counted once more.
  Result<uint64_t> AllocateBytes(uint64_t length);

  bool dirty() const { return !dirty_blocks_.empty() || !dirty_entries_.empty(); }
  // Blocks first; then, after a sync, the table entries that name new ones.
  Status Write();
  // A new tree in which cluster i has counts[i] references (its own clusters added), put behind
  // all of them and in force by one header write. The old tree is given up without a trace.
  Status Rebuild(const std::vector<uint32_t>& counts);

  // The image contradicts itself: a count is below the references we know, or free space is used.
  Error ReportDamage(uint64_t offset, const char* what) { return Damage(offset, what); }
  bool damage_found() const { return damage_found_; }
  Result<uint64_t> EndOfCounted();  // the offset behind the last cluster that has a count

 private:
  struct Block {
    ByteVector bytes;
    bool dirty = false;
  };
  Error Damage(uint64_t offset, const char* what);
  Result<Block*> GetBlock(uint64_t index);  // null: there is none, all its counts are 0
  void Touch(uint64_t index, Block* block);
  Status Store(uint64_t cluster, uint64_t value);
  Result<bool> IsFree(uint64_t cluster);  // false also where there is no refcount block yet
  // The first free cluster from `from` on; refcount blocks are made where there are none.
  Result<uint64_t> FindFree(uint64_t from);
  Status Take(uint64_t cluster, uint64_t count);
  Status AddBlock(uint64_t cluster);
  Result<uint64_t> FreeRun(uint64_t cluster, uint64_t wanted);
  std::vector<uint64_t> MissingBlocks(uint64_t cluster, uint64_t clusters) const;
  Status AddBlocks(uint64_t cluster, const std::vector<uint64_t>& indexes);
  struct Growth {
    uint64_t blocks, clusters;  // new refcount blocks, clusters of the new table
  };
  Result<Growth> PlanGrowth(uint64_t cluster, uint64_t reach) const;
  Status GrowTable(uint64_t cluster, uint64_t reach);
  Status SwitchTable(uint64_t offset, uint64_t clusters, std::vector<uint64_t> table);
  Status WriteBlocks();
  Status WriteEntries();
  void EvictClean();
  uint64_t BlockIndex(uint64_t cluster) const { return cluster / geometry_.block_entries; }
  uint64_t BlockOffset(uint64_t index) const { return table_[index] & ~kRefcountTableReserved; }

  DriverFile* file_;
  Geometry geometry_;
  uint64_t table_offset_, table_clusters_;
  std::vector<uint64_t> table_;
  MetadataMap* metadata_;
  HeaderWriter write_header_;
  std::unordered_map<uint64_t, Block> blocks_;          // by index in the table
  std::vector<uint64_t> dirty_blocks_, dirty_entries_;  // indexes
  std::vector<uint64_t> releases_;                      // cluster numbers
  uint64_t hint_ = 0;                                   // no free cluster below
  uint64_t stream_at_ = 0;         // where the next compressed stream may go on; 0: nowhere
  bool entries_in_order_ = false;  // a block counts the cluster of a later one
  bool damage_found_ = false;
};

}  // namespace imgfsck::qcow2
