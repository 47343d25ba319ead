// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/editor.h"

#include <algorithm>

#include "formats/common/stored.h"

namespace imgfsck::qcow2 {

Editor::Editor(Overlay& overlay, const CheckState& state)
    : overlay_(overlay),
      state_(state),
      image_(*state.image),
      table_offset_(image_.header.refcount_table_offset),
      table_(image_.refcount_table),
      end_(AlignUp(std::max(image_.file_size, overlay.Size()), image_.geometry.cluster_size)) {}

Status Editor::Write64(uint64_t offset, uint64_t value) {
  uint8_t bytes[8];
  StoreBe(bytes, value);
  return overlay_.WriteAt(offset, bytes);
}

Status Editor::Write32(uint64_t offset, uint32_t value) {
  uint8_t bytes[4];
  StoreBe(bytes, value);
  return overlay_.WriteAt(offset, bytes);
}

bool Editor::IsFree(uint64_t cluster) {
  if (state_.claims().IsUsed(cluster) || taken_.contains(cluster) ||
      StoredCount(image_, cluster) != 0) {
    return false;
  }
  uint64_t begin = cluster << geometry().cluster_bits;
  auto zero = ReadsAsZeros(overlay_, begin, begin + cluster_size());
  return zero && *zero;
}

Result<uint64_t> Editor::Reserve(uint64_t count) {
  uint64_t clusters = image_.file_size >> geometry().cluster_bits, run = 0;
  // Counts that cannot be read prove nothing to be free.
  while (state_.counts_compared && next_free_ < clusters && search_left_ > 0) {
    --search_left_;
    run = IsFree(next_free_++) ? run + 1 : 0;
    if (run < count) continue;
    for (uint64_t c = next_free_ - count; c < next_free_; ++c) taken_.insert(c);
    return (next_free_ - count) << geometry().cluster_bits;
  }
  uint64_t offset = end_;
  if (!RangeFits(offset, count << geometry().cluster_bits, kMaxHostOffset)) {
    return Error{ErrorCode::kTooLarge, "no room for new clusters", offset};
  }
  end_ += count << geometry().cluster_bits;
  IMG_RETURN_IF_ERROR(overlay_.SetSize(std::max(overlay_.Size(), end_)));
  allocated_bytes_ += count << geometry().cluster_bits;
  return offset;
}

Result<uint64_t> Editor::Allocate(uint64_t count) {
  IMG_ASSIGN_OR_RETURN(uint64_t offset, Reserve(count));
  for (uint64_t i = 0; i < count; ++i) {
    IMG_RETURN_IF_ERROR(SetCount((offset >> geometry().cluster_bits) + i, 1));
  }
  return offset;
}

void Editor::UseRefcountTable(uint64_t offset, std::vector<uint64_t> entries) {
  table_offset_ = offset;
  table_ = std::move(entries);
}

// A table large enough for entry `index`, behind the end; the old one's clusters become free.
Status Editor::GrowTable(uint64_t index) {
  uint64_t per_cluster = cluster_size() / 8;
  uint64_t clusters = DivRoundUp(index + 1 + index / 2, per_cluster);
  if (clusters * cluster_size() > kMaxRefcountTableBytes) {
    clusters = kMaxRefcountTableBytes / cluster_size();
    if (index >= clusters * per_cluster) {
      return Error{ErrorCode::kTooLarge, "the refcount table would exceed its limit", {}};
    }
  }
  IMG_ASSIGN_OR_RETURN(uint64_t offset, Reserve(clusters));
  uint64_t old_offset = table_offset_, old_clusters = DivRoundUp(table_.size(), per_cluster);
  table_.resize(clusters * per_cluster);
  ByteVector raw(table_.size() * 8);
  for (size_t i = 0; i < table_.size(); ++i) StoreBe(&raw[8 * i], table_[i]);
  IMG_RETURN_IF_ERROR(Write(offset, raw));
  table_offset_ = offset;
  IMG_RETURN_IF_ERROR(Write64(48, offset));
  IMG_RETURN_IF_ERROR(Write32(56, static_cast<uint32_t>(clusters)));
  for (uint64_t i = 0; i < clusters; ++i) {
    IMG_RETURN_IF_ERROR(SetCount((offset >> geometry().cluster_bits) + i, 1));
  }
  for (uint64_t i = 0; i < old_clusters; ++i) {
    IMG_RETURN_IF_ERROR(SetCount((old_offset >> geometry().cluster_bits) + i, 0));
  }
  return Ok();
}

// Something that the guest reads through has the cluster as well: what is written there, the guest
// reads.
bool Editor::ReadByTheGuest(uint64_t block) {
  const uint64_t cluster = block >> geometry().cluster_bits;
  const ClaimMap& claims = state_.claims();
  if (claims.IsData(cluster) || claims.IsCompressed(cluster)) return true;
  if (!implausible_) {
    implausible_.emplace();
    for (const TableRef& table : state_.walk.implausible) implausible_->insert(table.offset);
  }
  return implausible_->contains(block);
}

Result<uint64_t> Editor::BlockFor(uint64_t index) {
  if (index >= table_.size()) IMG_RETURN_IF_ERROR(GrowTable(index));
  uint64_t offset = table_[index] & ~kRefcountTableReserved;
  if (offset != 0) {
    if (!IsAligned(offset, cluster_size()) || offset >= overlay_.Size()) {
      return Error{ErrorCode::kInvalid, "a refcount table entry is damaged",
                   table_offset_ + 8 * index};
    }
    if (own_blocks_.insert(index).second && state_.walked && offset == BlockOffset(image_, index) &&
        (ReadByTheGuest(offset) || (state_.claims().IsConflict(offset >> geometry().cluster_bits) &&
                                    !HoldsCounts(image_, state_.claims(), index)))) {
      IMG_RETURN_IF_ERROR(MoveBlock(index));
      offset = table_[index];
    }
    return offset;
  }
  IMG_ASSIGN_OR_RETURN(offset, Reserve(1));
  table_[index] = offset;
  IMG_RETURN_IF_ERROR(Write64(table_offset_ + 8 * index, offset));
  IMG_RETURN_IF_ERROR(SetCount(offset >> geometry().cluster_bits, 1));
  return offset;
}

Result<uint64_t> Editor::MoveBlock(uint64_t index) {
  own_blocks_.insert(index);
  IMG_ASSIGN_OR_RETURN(const uint64_t old, BlockFor(index));
  ByteVector block(cluster_size());
  IMG_RETURN_IF_ERROR(Read(old, block));
  IMG_ASSIGN_OR_RETURN(const uint64_t offset, Reserve(1));
  IMG_RETURN_IF_ERROR(Write(offset, block));
  table_[index] = offset;
  IMG_RETURN_IF_ERROR(Write64(table_offset_ + 8 * index, offset));
  IMG_RETURN_IF_ERROR(SetCount(offset >> geometry().cluster_bits, 1));
  return offset >> geometry().cluster_bits;
}

Status Editor::SetCount(uint64_t cluster, uint64_t value) {
  const Geometry& g = geometry();
  IMG_ASSIGN_OR_RETURN(uint64_t block, BlockFor(cluster / g.block_entries));
  uint64_t index = cluster % g.block_entries;
  uint64_t byte =
      g.refcount_order >= 3 ? index << (g.refcount_order - 3) : index >> (3 - g.refcount_order);
  uint64_t aligned = AlignDown(byte, 8);
  uint8_t word[8];
  IMG_RETURN_IF_ERROR(Read(block + aligned, word));
  uint64_t first = (aligned * 8) >> g.refcount_order;
  if (!StoreRefcount(word, g.refcount_order, index - first, value)) {
    return Error{ErrorCode::kTooLarge, "the count does not fit the image's refcount width", {}};
  }
  return Write(block + aligned, word);
}

}  // namespace imgfsck::qcow2
