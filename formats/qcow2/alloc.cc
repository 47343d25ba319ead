// SPDX-License-Identifier: Apache-2.0
// Counts: reading, changing, writing them.
#include "formats/qcow2/alloc.h"

#include <fmt/format.h>

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kCleanBlockBytes = 32 * kMiB;  // kept in memory

}  // namespace

uint64_t CountAt(Bytes block, unsigned order, uint64_t index) {
  switch (order) {
    case 3:
      return block[index];
    case 4:
      return BeAt<uint16_t>(block, index * 2);
    case 5:
      return BeAt<uint32_t>(block, index * 4);
    case 6:
      return BeAt<uint64_t>(block, index * 8);
    default:
      break;
  }
  unsigned bits = 1u << order, per_byte = 8 / bits;
  unsigned shift = static_cast<unsigned>(index % per_byte) * bits;
  return block[index / per_byte] >> shift & ((1u << bits) - 1);
}

void PutCount(MutableBytes block, unsigned order, uint64_t index, uint64_t value) {
  switch (order) {
    case 3:
      block[index] = static_cast<uint8_t>(value);
      return;
    case 4:
      PutBe(block, index * 2, static_cast<uint16_t>(value));
      return;
    case 5:
      PutBe(block, index * 4, static_cast<uint32_t>(value));
      return;
    case 6:
      PutBe(block, index * 8, value);
      return;
    default:
      break;
  }
  unsigned bits = 1u << order, per_byte = 8 / bits;
  unsigned shift = static_cast<unsigned>(index % per_byte) * bits;
  unsigned mask = ((1u << bits) - 1) << shift;
  uint8_t& byte = block[index / per_byte];
  byte = static_cast<uint8_t>((byte & ~mask) | static_cast<unsigned>(value) << shift);
}

Refcounts::Refcounts(DriverFile* file, const Geometry& g, uint64_t table_offset,
                     std::vector<uint64_t> table, MetadataMap* metadata, HeaderWriter write_header)
    : file_(file),
      geometry_(g),
      table_offset_(table_offset),
      table_clusters_(table.size() * 8 / g.cluster_size),
      table_(std::move(table)),
      metadata_(metadata),
      write_header_(std::move(write_header)) {}

Error Refcounts::Damage(uint64_t offset, const char* what) {
  damage_found_ = true;
  return {ErrorCode::kInvalid, fmt::format("damaged image, host offset {:#x}: {}", offset, what),
          offset};
}

void Refcounts::EvictClean() {
  if (blocks_.size() * geometry_.cluster_size < kCleanBlockBytes) return;
  std::erase_if(blocks_, [](const auto& item) { return !item.second.dirty; });
}

Result<Refcounts::Block*> Refcounts::GetBlock(uint64_t index) {
  auto found = blocks_.find(index);
  if (found != blocks_.end()) return &found->second;
  if (index >= table_.size() || table_[index] == 0) return static_cast<Block*>(nullptr);
  uint64_t offset = BlockOffset(index);
  if ((table_[index] & kRefcountTableReserved) != 0 || offset == 0 ||
      !IsAligned(offset, geometry_.cluster_size) || offset >= file_->Size()) {
    return Damage(offset, "no refcount block can be there");
  }
  EvictClean();
  Block block{ByteVector(geometry_.cluster_size), false};
  IMG_RETURN_IF_ERROR(file_->Read(offset, block.bytes));
  return &blocks_.emplace(index, std::move(block)).first->second;
}

void Refcounts::Touch(uint64_t index, Block* block) {
  if (!block->dirty) dirty_blocks_.push_back(index);
  block->dirty = true;
}

Result<uint64_t> Refcounts::Get(uint64_t cluster) {
  IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(BlockIndex(cluster)));
  if (block == nullptr) return uint64_t{0};
  return CountAt(block->bytes, geometry_.refcount_order, cluster % geometry_.block_entries);
}

Status Refcounts::Store(uint64_t cluster, uint64_t value) {
  IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(BlockIndex(cluster)));
  if (block == nullptr) {
    return Damage(cluster * geometry_.cluster_size, "the cluster has no refcount block");
  }
  PutCount(block->bytes, geometry_.refcount_order, cluster % geometry_.block_entries, value);
  Touch(BlockIndex(cluster), block);
  return Ok();
}

Status Refcounts::Raise(uint64_t cluster) {
  IMG_ASSIGN_OR_RETURN(uint64_t count, Get(cluster));
  if (count == 0) {
    return Damage(cluster * geometry_.cluster_size, "the cluster is used, but its count is 0");
  }
  if (count >= geometry_.MaxRefcount()) {
    return Error{ErrorCode::kTooLarge,
                 fmt::format("a cluster has {} references, and {}-bit refcounts allow no more",
                             count, 1u << geometry_.refcount_order),
                 cluster * geometry_.cluster_size};
  }
  return Store(cluster, count + 1);
}

Status Refcounts::RaiseSpan(uint64_t offset, uint64_t length) {
  uint64_t first = offset / geometry_.cluster_size;
  uint64_t end = geometry_.ClustersOf(SaturatingAdd(offset, length));
  for (uint64_t cluster = first; cluster < end; ++cluster) {
    auto status = Raise(cluster);
    if (status) continue;
    while (cluster-- > first) {
      IMG_ASSIGN_OR_RETURN(uint64_t count, Get(cluster));
      IMG_RETURN_IF_ERROR(Store(cluster, count - 1));
    }
    return status;
  }
  return Ok();
}

void Refcounts::ReleaseSpan(uint64_t offset, uint64_t length) {
  uint64_t end = geometry_.ClustersOf(SaturatingAdd(offset, length));
  for (uint64_t c = offset / geometry_.cluster_size; c < end; ++c) releases_.push_back(c);
}

Status Refcounts::ApplyReleases(std::vector<uint64_t>* freed) {
  while (!releases_.empty()) {
    uint64_t cluster = releases_.back();
    IMG_ASSIGN_OR_RETURN(uint64_t count, Get(cluster));
    if (count == 0) {
      return Damage(cluster * geometry_.cluster_size, "the cluster was used, but its count is 0");
    }
    IMG_RETURN_IF_ERROR(Store(cluster, count - 1));
    releases_.pop_back();
    if (count > 1) continue;
    hint_ = std::min(hint_, cluster);
    if (stream_at_ / geometry_.cluster_size == cluster) stream_at_ = 0;
    if (freed != nullptr) freed->push_back(cluster);
  }
  return Ok();
}

Status Refcounts::WriteBlocks() {
  std::ranges::sort(dirty_blocks_, {}, [this](uint64_t index) { return BlockOffset(index); });
  for (uint64_t index : dirty_blocks_) {
    Block& block = blocks_.at(index);
    IMG_RETURN_IF_ERROR(file_->Write(BlockOffset(index), block.bytes));
  }
  for (uint64_t index : dirty_blocks_) blocks_.at(index).dirty = false;
  dirty_blocks_.clear();
  return Ok();
}

// Ascending, a sector of the table in one write, which is all there or not at all.
Status Refcounts::WriteEntries() {
  constexpr uint64_t kEntries = kSector / 8;
  std::ranges::sort(dirty_entries_);
  for (auto at = dirty_entries_.begin(); at != dirty_entries_.end();) {
    uint64_t first = *at, last = first;
    for (; at != dirty_entries_.end() && *at / kEntries == first / kEntries; ++at) last = *at;
    ByteVector entries((last - first + 1) * 8);
    for (uint64_t i = first; i <= last; ++i) StoreBe(&entries[8 * (i - first)], table_[i]);
    IMG_RETURN_IF_ERROR(file_->Write(table_offset_ + 8 * first, entries));
    if (entries_in_order_) IMG_RETURN_IF_ERROR(file_->Sync());
  }
  entries_in_order_ = false;
  dirty_entries_.clear();
  return Ok();
}

Status Refcounts::Write() {
  IMG_RETURN_IF_ERROR(WriteBlocks());
  if (dirty_entries_.empty()) return Ok();
  IMG_RETURN_IF_ERROR(file_->Sync());
  return WriteEntries();
}

Result<uint64_t> Refcounts::EndOfCounted() {
  for (uint64_t index = table_.size(); index-- > 0;) {
    if (table_[index] == 0) continue;
    IMG_ASSIGN_OR_RETURN(Block * block, GetBlock(index));
    for (uint64_t entry = geometry_.block_entries; entry-- > 0;) {
      if (CountAt(block->bytes, geometry_.refcount_order, entry) != 0) {
        return (index * geometry_.block_entries + entry + 1) * geometry_.cluster_size;
      }
    }
  }
  return uint64_t{0};
}

}  // namespace imgfsck::qcow2
