// SPDX-License-Identifier: Apache-2.0
// Editing bitmaps, and loading them. Storing is in bitmap_save.cc.
#include "formats/qcow2/bitmap_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

Error Refuse(const Bitmap& entry, const char* why) {
  return {ErrorCode::kInvalid, fmt::format("bitmap \"{}\": {}", Printable(entry.name), why),
          entry.host_offset};
}

}  // namespace

uint64_t BitmapStore::DiskSize() const { return AlignDown(core_->header.size, kSector); }

std::vector<BitmapInfo> BitmapStore::List() const {
  std::vector<BitmapInfo> list;
  auto add = [&](const Bitmap& entry, bool stale) {
    uint64_t granularity = entry.granularity_bits < 64 ? uint64_t{1} << entry.granularity_bits : 0;
    list.push_back({entry.name, granularity, (entry.flags & kBitmapAuto) != 0, stale});
  };
  if (loaded_) {
    for (const Live& live : live_) add(live.entry, live.stale);
  } else if (core_->image->bitmaps_extension) {
    for (const Bitmap& entry : core_->image->bitmaps.entries) {
      add(entry, entry.in_use() || !consistent());
    }
  }
  return list;
}

Result<ByteVector> BitmapStore::ReadTable(const Bitmap& entry) const {
  ByteVector table(uint64_t{entry.table_size} * 8);
  if (!IsAligned(entry.table_offset, core_->g().cluster_size) || entry.table_offset == 0 ||
      !RangeFits(entry.table_offset, table.size(),
                 AlignUp(core_->file.Size(), core_->g().cluster_size))) {
    return Refuse(entry, "its table does not lie in the file");
  }
  IMG_RETURN_IF_ERROR(core_->file.Read(entry.table_offset, table));
  return table;
}

// `budget`: bytes that all bitmaps together can have in this file.
Status BitmapStore::Load(Live* live, uint64_t* budget) const {
  const Bitmap& entry = live->entry;
  const uint64_t cluster = core_->g().cluster_size;
  if (entry.type != 1) return Refuse(entry, "it is of an unknown type");
  if (entry.granularity_bits < kMinGranularityBits ||
      entry.granularity_bits > kMaxGranularityBits ||
      entry.table_size != BitmapTableEntries(DiskSize(), entry.granularity_bits, cluster) ||
      entry.table_size * cluster > std::max(kMaxBitmapBytes, cluster)) {
    return Refuse(entry, "granularity and table size do not fit the disk");
  }
  IMG_ASSIGN_OR_RETURN(ByteVector table, ReadTable(entry));
  live->bits = BitmapBits(DiskSize(), uint64_t{1} << entry.granularity_bits, cluster);
  for (size_t i = 0; i < entry.table_size; ++i) {
    uint64_t value = LoadBe<uint64_t>(&table[8 * i]), offset = value & kOffsetMask;
    BitmapBits::Piece& piece = live->bits.pieces()[i];
    if ((value & kBitmapEntryReserved) != 0 || (offset != 0 && (value & kBitmapAllOnes) != 0) ||
        !IsAligned(offset, cluster) || offset >= core_->file.Size()) {
      return Refuse(entry, "an entry of its table makes no sense");
    }
    piece.ones = (value & kBitmapAllOnes) != 0;
    if (offset == 0) continue;
    if (*budget < cluster) return Refuse(entry, "its data is used more than once");
    *budget -= cluster;
    piece.bytes.resize(cluster);
    IMG_RETURN_IF_ERROR(core_->file.Read(offset, piece.bytes));
  }
  live->bits.Tidy();
  return Ok();
}

Status BitmapStore::CollectClusters(Live* live) const {
  const uint64_t cluster = core_->g().cluster_size;
  IMG_ASSIGN_OR_RETURN(ByteVector table, ReadTable(live->entry));
  live->clusters.clear();
  uint64_t first = live->entry.table_offset / cluster;
  for (uint64_t i = 0; i < core_->g().ClustersOf(table.size()); ++i) {
    live->clusters.push_back(first + i);
  }
  for (size_t at = 0; at < table.size(); at += 8) {
    uint64_t offset = LoadBe<uint64_t>(&table[at]) & kOffsetMask;
    if (offset != 0) live->clusters.push_back(offset / cluster);
  }
  return Ok();
}

Status BitmapStore::LoadAll() {
  live_.clear();
  garbage_.clear();
  uint64_t budget = AlignUp(core_->file.Size(), core_->g().cluster_size);
  if (core_->image->bitmaps_extension) {
    for (const Bitmap& entry : core_->image->bitmaps.entries) {
      Live live{entry, {}, entry.in_use() || !consistent(), {}};
      if (entry.extra_data_size != 0 || (entry.flags & ~(kBitmapInUse | kBitmapAuto)) != 0) {
        return Error{ErrorCode::kUnsupported, "a bitmap has flags or data that nobody here knows",
                     entry.host_offset};
      }
      if (!live.stale) IMG_RETURN_IF_ERROR(Load(&live, &budget));
      if (auto status = CollectClusters(&live); !status && !live.stale) return status;
      live.entry.flags |= kBitmapInUse;
      live_.push_back(std::move(live));
    }
  }
  loaded_ = true;
  return Ok();
}

Result<std::vector<GuestRange>> BitmapStore::Dirty(std::string_view name) {
  if (loaded_) {
    IMG_ASSIGN_OR_RETURN(Live * live, Find(name));
    if (live->stale) return Refuse(live->entry, "it was left in use, its contents are unknown");
    return live->bits.Ranges();
  }
  for (const Bitmap& entry : core_->image->bitmaps.entries) {
    if (entry.name != name) continue;
    if (entry.in_use() || !consistent()) {
      return Refuse(entry, "it was left in use, its contents are unknown");
    }
    Live live{entry, {}, false, {}};
    uint64_t budget = AlignUp(core_->file.Size(), core_->g().cluster_size);
    IMG_RETURN_IF_ERROR(Load(&live, &budget));
    return live.bits.Ranges();
  }
  return Error{ErrorCode::kNotFound, fmt::format("no bitmap \"{}\"", Printable(name)), {}};
}

Result<BitmapStore::Live*> BitmapStore::Find(std::string_view name) {
  for (Live& live : live_) {
    if (live.entry.name == name) return &live;
  }
  return Error{ErrorCode::kNotFound, fmt::format("no bitmap \"{}\"", Printable(name)), {}};
}

void BitmapStore::Mark(uint64_t offset, uint64_t length) {
  for (Live& live : live_) {
    if (!live.stale && (live.entry.flags & kBitmapAuto) != 0) live.bits.Set(offset, length);
  }
}

void BitmapStore::Resize(uint64_t size) {
  for (Live& live : live_) {
    if (!live.stale) live.bits.Resize(size);
  }
}

Status BitmapStore::Add(std::string_view name, uint64_t granularity, bool enabled) {
  if (!core_->header.is_v3()) {
    return Error{ErrorCode::kUnsupported, "version 2 images have no bitmaps", {}};
  }
  if (!loaded_) IMG_RETURN_IF_ERROR(LoadAll());
  if (name.empty() || name.size() > kMaxBitmapName) {
    return Error{ErrorCode::kInvalid, "a bitmap's name has 1 to 1023 bytes", {}};
  }
  if (Find(name)) {
    return Error{ErrorCode::kExists, fmt::format("bitmap \"{}\" exists", Printable(name)), {}};
  }
  if (!std::has_single_bit(granularity) || granularity < (uint64_t{1} << kMinGranularityBits) ||
      granularity > (uint64_t{1} << kMaxGranularityBits)) {
    return Error{ErrorCode::kInvalid, "a bitmap's granularity is a power of two, 512 to 2G", {}};
  }
  if (DivRoundUp(DiskSize(), granularity) / 8 > kMaxBitmapBytes || live_.size() >= kMaxBitmaps) {
    return Error{ErrorCode::kTooLarge, "too many bits, or too many bitmaps", {}};
  }
  Live live;
  live.entry.name = name;
  live.entry.type = 1;
  live.entry.granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity));
  live.entry.flags = enabled ? kBitmapAuto : 0;
  live.bits = BitmapBits(DiskSize(), granularity, core_->g().cluster_size);
  live_.push_back(std::move(live));
  return Ok();
}

Status BitmapStore::Remove(std::string_view name) {
  if (!loaded_) IMG_RETURN_IF_ERROR(LoadAll());
  IMG_ASSIGN_OR_RETURN(Live * live, Find(name));
  garbage_.insert(garbage_.end(), live->clusters.begin(), live->clusters.end());
  live_.erase(live_.begin() + (live - live_.data()));
  return Ok();
}

Status BitmapStore::Clear(std::string_view name) {
  IMG_ASSIGN_OR_RETURN(Live * live, Find(name));
  if (live->stale) return Refuse(live->entry, "it was left in use; remove it");
  live->bits.Clear();
  return Ok();
}

Status BitmapStore::SetEnabled(std::string_view name, bool enabled) {
  IMG_ASSIGN_OR_RETURN(Live * live, Find(name));
  if (live->stale) return Refuse(live->entry, "it was left in use; remove it");
  live->entry.flags &= ~kBitmapAuto;
  if (enabled) live->entry.flags |= kBitmapAuto;
  return Ok();
}

Status BitmapStore::Merge(std::string_view target, std::string_view source) {
  IMG_ASSIGN_OR_RETURN(Live * to, Find(target));
  IMG_ASSIGN_OR_RETURN(Live * from, Find(source));
  if (to->stale || from->stale) {
    return Refuse(to->stale ? to->entry : from->entry, "it was left in use; remove it");
  }
  if (to != from) to->bits.MergeFrom(from->bits);
  return Ok();
}

}  // namespace imgfsck::qcow2
