// SPDX-License-Identifier: Apache-2.0
// Allocation: finding free clusters, and making the refcount blocks and the table that new ones
// need. A new block lies in the range it counts, at the first free cluster, and counts itself.
#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/alloc.h"

namespace imgfsck::qcow2 {

Result<bool> Refcounts::IsFree(uint64_t cluster) {
  IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(BlockIndex(cluster)));
  return block != nullptr &&
         CountAt(block->bytes, geometry_.refcount_order, cluster % geometry_.block_entries) == 0;
}

Result<uint64_t> Refcounts::FindFree(uint64_t from) {
  const uint64_t per_block = geometry_.block_entries;
  uint64_t cluster = from;
  while (true) {
    if (cluster >= kMaxHostOffset / geometry_.cluster_size) {
      return Error{ErrorCode::kNoSpace, "the file cannot grow any more", {}};
    }
    if (BlockIndex(cluster) >= table_.size()) {
      IMG_RETURN_IF_ERROR(GrowTable(cluster, cluster));
      continue;
    }
    IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(BlockIndex(cluster)));
    if (block == nullptr) {
      IMG_RETURN_IF_ERROR(AddBlock(cluster));
      continue;
    }
    for (uint64_t entry = cluster % per_block; entry < per_block; ++entry, ++cluster) {
      if (CountAt(block->bytes, geometry_.refcount_order, entry) == 0) return cluster;
    }
  }
}

Status Refcounts::Take(uint64_t cluster, uint64_t count) {
  uint64_t offset = cluster * geometry_.cluster_size;
  if (metadata_->Overlaps(offset, count * geometry_.cluster_size)) {
    return Damage(offset, "metadata, but its count is 0");
  }
  for (uint64_t i = 0; i < count; ++i) IMG_RETURN_IF_ERROR(Store(cluster + i, 1));
  if (cluster == hint_) hint_ += count;
  return Ok();
}

Result<HostRun> Refcounts::Allocate(uint64_t wanted, std::optional<uint64_t> preferred) {
  std::optional<uint64_t> first;
  if (preferred) {
    IMG_ASSIGN_OR_RETURN(bool free, IsFree(*preferred / geometry_.cluster_size));
    if (free) first = *preferred / geometry_.cluster_size;
  }
  if (!first) {
    IMG_ASSIGN_OR_RETURN(first, FindFree(hint_));
    hint_ = *first;
  }
  uint64_t count = 1;
  for (; count < wanted; ++count) {
    IMG_ASSIGN_OR_RETURN(bool free, IsFree(*first + count));
    if (!free) break;
  }
  IMG_RETURN_IF_ERROR(Take(*first, count));
  return HostRun{*first * geometry_.cluster_size, count};
}

// How many clusters from `cluster` on nothing is counted for, at most `wanted`; also where there
// are no refcount blocks yet.
Result<uint64_t> Refcounts::FreeRun(uint64_t cluster, uint64_t wanted) {
  const uint64_t end = cluster + wanted;
  for (uint64_t at = cluster; at < end;) {
    uint64_t limit = std::min(end, (BlockIndex(at) + 1) * geometry_.block_entries);
    IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(BlockIndex(at)));
    if (block == nullptr) at = limit;
    for (; at < limit; ++at) {
      uint64_t entry = at % geometry_.block_entries;
      if (CountAt(block->bytes, geometry_.refcount_order, entry) != 0) return at - cluster;
    }
  }
  return wanted;
}

// The indexes of the refcount blocks to be made before so many clusters and these blocks, all in a
// row, are counted.
std::vector<uint64_t> Refcounts::MissingBlocks(uint64_t cluster, uint64_t clusters) const {
  std::vector<uint64_t> missing;
  for (uint64_t i = BlockIndex(cluster); i <= BlockIndex(cluster + missing.size() + clusters - 1);
       ++i) {
    if (i >= table_.size() || table_[i] == 0) missing.push_back(i);
  }
  return missing;
}

// New blocks in a row from `cluster` on. Each lies in the range of an earlier one, or in its own;
// table entries therefore reach the disk in order.
Status Refcounts::AddBlocks(uint64_t cluster, const std::vector<uint64_t>& indexes) {
  const uint64_t size = geometry_.cluster_size;
  if (indexes.empty()) return Ok();
  if (metadata_->Overlaps(cluster * size, indexes.size() * size)) {
    return Damage(cluster * size, "metadata without a refcount block");
  }
  EvictClean();
  for (uint64_t i = 0; i < indexes.size(); ++i) {
    Block& block = blocks_[indexes[i]];
    block.bytes.assign(size, 0);
    Touch(indexes[i], &block);
    table_[indexes[i]] = (cluster + i) * size;
    dirty_entries_.push_back(indexes[i]);
  }
  for (uint64_t i = 0; i < indexes.size(); ++i) IMG_RETURN_IF_ERROR(Store(cluster + i, 1));
  metadata_->fixed.Insert(cluster * size, indexes.size() * size);
  entries_in_order_ = entries_in_order_ || indexes.size() > 1;
  return Ok();
}

Result<uint64_t> Refcounts::AllocateExactly(uint64_t clusters) {
  uint64_t at = hint_;
  while (true) {
    std::vector<uint64_t> blocks = MissingBlocks(at, clusters);
    const uint64_t all = blocks.size() + clusters;
    if (at + all > kMaxHostOffset / geometry_.cluster_size) {
      return Error{ErrorCode::kNoSpace, "the file cannot grow any more", {}};
    }
    IMG_ASSIGN_OR_RETURN(uint64_t run, FreeRun(at, all));
    if (run < all) {
      at += run + 1;
      continue;
    }
    if (BlockIndex(at + all - 1) >= table_.size()) {
      // Room for the run behind what the growth itself takes.
      uint64_t end = table_.size() * geometry_.block_entries;
      IMG_RETURN_IF_ERROR(GrowTable(end, std::max(end, at) + 2 * all));
      continue;
    }
    IMG_RETURN_IF_ERROR(AddBlocks(at, blocks));
    IMG_RETURN_IF_ERROR(Take(at + blocks.size(), clusters));
    return (at + blocks.size()) * geometry_.cluster_size;
  }
}

Result<uint64_t> Refcounts::AllocateBytes(uint64_t length) {
  const uint64_t size = geometry_.cluster_size;
  if (stream_at_ != 0) {
    uint64_t cluster = stream_at_ / size, room = size - stream_at_ % size, offset = stream_at_;
    IMG_ASSIGN_OR_RETURN(uint64_t count, Get(cluster));
    bool shareable = count > 0 && count < geometry_.MaxRefcount();
    if (shareable && length > room) {
      IMG_ASSIGN_OR_RETURN(HostRun next, Allocate(1, (cluster + 1) * size));
      shareable = next.offset == (cluster + 1) * size;
      if (!shareable) {
        stream_at_ = next.offset + length;
        return next.offset;
      }
    }
    if (shareable) {
      IMG_RETURN_IF_ERROR(Raise(cluster));
      stream_at_ += length;
      if (stream_at_ % size == 0) stream_at_ = 0;
      return offset;
    }
  }
  IMG_ASSIGN_OR_RETURN(HostRun run, Allocate(1));
  stream_at_ = run.offset + length;
  return run.offset;
}

Status Refcounts::AddBlock(uint64_t cluster) {
  uint64_t index = BlockIndex(cluster), offset = cluster * geometry_.cluster_size;
  if (metadata_->Overlaps(offset, geometry_.cluster_size)) {
    return Damage(offset, "metadata without a refcount block");
  }
  EvictClean();
  Block& block = blocks_[index];
  block.bytes.assign(geometry_.cluster_size, 0);
  PutCount(block.bytes, geometry_.refcount_order, cluster % geometry_.block_entries, 1);
  Touch(index, &block);
  table_[index] = offset;
  dirty_entries_.push_back(index);
  metadata_->fixed.Insert(offset, geometry_.cluster_size);
  return Ok();
}

Result<Refcounts::Growth> Refcounts::PlanGrowth(uint64_t cluster, uint64_t reach) const {
  const uint64_t size = geometry_.cluster_size;
  Growth plan{1, 1};
  uint64_t spare = table_.size() + table_.size() / 2;  // entries worth having
  if (spare * 8 > kMaxRefcountTableBytes) spare = 0;
  spare = std::max(spare, BlockIndex(reach) + 1);
  while (true) {
    uint64_t last = BlockIndex(cluster + plan.blocks + plan.clusters - 1);
    uint64_t blocks = last - BlockIndex(cluster) + 1;
    uint64_t clusters = geometry_.ClustersOf(8 * std::max(last + 2, spare));
    if (blocks <= plan.blocks && clusters <= plan.clusters) break;
    plan.blocks = std::max(plan.blocks, blocks);
    plan.clusters = std::max(plan.clusters, clusters);
  }
  if (plan.clusters * size > kMaxRefcountTableBytes) {
    return Error{ErrorCode::kNoSpace, "the refcount table cannot grow any more", {}};
  }
  return plan;
}

// `cluster` is the first one that the table does not reach: from there on the blocks that count the
// new structures, then the new table, which reaches as far as cluster `reach`.
Status Refcounts::GrowTable(uint64_t cluster, uint64_t reach) {
  const uint64_t size = geometry_.cluster_size, begin = cluster * size;
  IMG_ASSIGN_OR_RETURN(Growth plan, PlanGrowth(cluster, reach));
  const uint64_t end = cluster + plan.blocks + plan.clusters, first = BlockIndex(cluster);
  if (metadata_->Overlaps(begin, (end - cluster) * size)) {
    return Damage(begin, "metadata that no refcount covers");
  }
  IMG_RETURN_IF_ERROR(WriteBlocks());  // the new table names them
  std::vector<uint64_t> table = table_;
  table.resize(plan.clusters * size / 8);
  for (uint64_t i = 0; i < plan.blocks; ++i) {
    ByteVector block(size);
    for (uint64_t c = std::max(cluster, (first + i) * geometry_.block_entries);
         c < end && BlockIndex(c) == first + i; ++c) {
      PutCount(block, geometry_.refcount_order, c % geometry_.block_entries, 1);
    }
    table[first + i] = begin + i * size;
    IMG_RETURN_IF_ERROR(file_->Write(begin + i * size, block));
  }
  uint64_t old_offset = table_offset_, old_clusters = table_clusters_;
  IMG_RETURN_IF_ERROR(SwitchTable(begin + plan.blocks * size, plan.clusters, std::move(table)));
  metadata_->fixed.Insert(begin, plan.blocks * size);
  ReleaseSpan(old_offset, old_clusters * size);
  return Ok();
}

Status Refcounts::SwitchTable(uint64_t offset, uint64_t clusters, std::vector<uint64_t> table) {
  const uint64_t size = geometry_.cluster_size;
  ByteVector bytes(clusters * size);
  for (size_t i = 0; i < table.size(); ++i) StoreBe(&bytes[8 * i], table[i]);
  IMG_RETURN_IF_ERROR(file_->Write(offset, bytes));
  IMG_RETURN_IF_ERROR(file_->Sync());
  ByteVector fields(12);  // refcount_table_offset, refcount_table_clusters
  StoreBe(&fields[0], offset);
  StoreBe(&fields[8], static_cast<uint32_t>(clusters));
  IMG_RETURN_IF_ERROR(write_header_(48, fields));
  IMG_RETURN_IF_ERROR(file_->Sync());
  metadata_->fixed.Erase(table_offset_, table_clusters_ * size);
  metadata_->fixed.Insert(offset, clusters * size);
  table_ = std::move(table);
  table_offset_ = offset;
  table_clusters_ = clusters;
  dirty_entries_.clear();  // they went along
  return Ok();
}

}  // namespace imgfsck::qcow2
