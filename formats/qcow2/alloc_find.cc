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
      IMG_RETURN_IF_ERROR(GrowTable(cluster));
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

Result<uint64_t> Refcounts::AllocateExactly(uint64_t clusters) {
  uint64_t from = hint_;
  while (true) {
    IMG_ASSIGN_OR_RETURN(uint64_t first, FindFree(from));
    uint64_t count = 1;
    while (count < clusters) {
      // A block made on the way takes the cluster asked for, and the search begins anew behind it.
      IMG_ASSIGN_OR_RETURN(uint64_t next, FindFree(first + count));
      if (next != first + count) break;
      ++count;
    }
    if (count == clusters) {
      IMG_RETURN_IF_ERROR(Take(first, clusters));
      return first * geometry_.cluster_size;
    }
    from = first + count;
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

Result<Refcounts::Growth> Refcounts::PlanGrowth(uint64_t cluster) const {
  const uint64_t size = geometry_.cluster_size;
  Growth plan{1, 1};
  uint64_t spare = table_.size() + table_.size() / 2;  // entries worth having
  if (spare * 8 > kMaxRefcountTableBytes) spare = 0;
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
// new structures, then the new table.
Status Refcounts::GrowTable(uint64_t cluster) {
  const uint64_t size = geometry_.cluster_size, begin = cluster * size;
  IMG_ASSIGN_OR_RETURN(Growth plan, PlanGrowth(cluster));
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
  IMG_RETURN_IF_ERROR(file_->Write(48, fields));
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
