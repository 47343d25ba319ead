// SPDX-License-Identifier: Apache-2.0
// Growing a VHD. Every step leaves a disk that reads as before, or larger: table first, then the
// copy of the footer, then the footer.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/bat.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/geometry.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kPiece = 64 * kKiB;

// The footer of the same disk with another size, rounded as its creator rounds.
Footer Resized(const Footer& old, uint64_t size) {
  Footer footer = old;
  uint64_t sectors = DivRoundUp(size, kSectorSize);
  if (CreatorOf(old.creator_app).by_chs && !IsSaturated(old.geometry)) {
    sectors = RoundUpToGeometry(sectors);
  }
  footer.current_size = sectors * kSectorSize;
  if (!IsSaturated(old.geometry)) footer.geometry = GeometryFor(sectors);
  return footer;
}

Status FillWithOnes(ByteStore* store, uint64_t begin, uint64_t end) {
  ByteVector ones(std::min(kPiece, end - std::min(begin, end)), 0xFF);
  while (begin < end) {
    uint64_t length = std::min<uint64_t>(ones.size(), end - begin);
    IMG_RETURN_IF_ERROR(store->WriteAt(begin, Bytes(ones).first(length)));
    begin += length;
  }
  return Ok();
}

// Anything else may be a block that the table has lost.
bool HoldsOnlyFiller(const ByteSource& source, uint64_t begin, uint64_t end) {
  ByteVector piece;
  for (; begin < end; begin += piece.size()) {
    piece.resize(std::min(kPiece, end - begin));
    if (!ReadPadded(source, begin, piece)) return false;
    if (!std::ranges::all_of(piece, [](uint8_t b) { return b == 0 || b == 0xFF; })) return false;
  }
  return true;
}

uint64_t TableBytes(uint64_t entries) { return AlignUp(entries * 4, kSectorSize); }

}  // namespace

Status VhdDriver::Resize(uint64_t virtual_size) {
  IMG_RETURN_IF_ERROR(CheckWritable());
  if (virtual_size < size_) {
    return Error{ErrorCode::kUnsupported, "a VHD can only grow", {}};
  }
  if (virtual_size == size_) return Ok();
  if (virtual_size > kMaxSectors * kSectorSize) {
    return Error{ErrorCode::kTooLarge, "a VHD holds at most 2040 GiB", {}};
  }
  Footer footer = Resized(image_->footer, virtual_size);
  if (vhd::VirtualSize(footer, image_->policy) < virtual_size) {
    return Error{
        ErrorCode::kTooLarge, "no geometry that this disk's programs go by is that large", {}};
  }
  IMG_RETURN_IF_ERROR(sparse() ? ResizeSparse(footer) : ResizeFixed(footer));
  image_->footer = image_->trailing.footer = footer;
  if (sparse()) image_->leading.footer = footer;
  size_ = image_->VirtualSize();
  return Ok();
}

Status VhdDriver::ResizeFixed(Footer footer) {
  uint64_t old_end = footer_offset_;
  Footer old = image_->footer;
  image_->footer = footer;
  auto moved = MoveFooter(footer.current_size);
  if (!moved) {
    image_->footer = old;
    return moved;
  }
  uint64_t old_footer = std::min(kFooterSize, footer_offset_ - old_end);
  IMG_RETURN_IF_ERROR(store_->WriteZeros(old_end, old_footer));
  return store_->Sync();
}

// What the last block holds behind the old end must not appear in the new range.
Status VhdDriver::ClearTail() {
  uint64_t within = size_ % image_->block_size;
  if (within == 0) return Ok();
  IMG_ASSIGN_OR_RETURN(uint64_t start, BlockStart(size_ / image_->block_size));
  if (start == kNoOffset) return Ok();
  return store_->WriteZeros(start + image_->bitmap_bytes + within, image_->block_size - within);
}

Status VhdDriver::ResizeSparse(Footer footer) {
  IMG_RETURN_IF_ERROR(ClearTail());
  uint64_t needed = DivRoundUp(footer.current_size, image_->block_size);
  if (needed > image_->bat_entries) IMG_RETURN_IF_ERROR(GrowTable(needed));
  ByteVector old(kFooterSize);
  IMG_RETURN_IF_ERROR(ReadExact(*store_, 0, old));
  Bytes raw = Seal(&footer);
  auto written = store_->WriteAt(0, raw);
  if (written) written = store_->Sync();
  if (written) written = store_->WriteAt(footer_offset_, raw);
  if (!written) {
    // One without the other is a disk of two sizes.
    if (store_->WriteAt(0, old)) (void)store_->Sync();
    return written;
  }
  return store_->Sync();
}

bool VhdDriver::TableHasRoom(uint64_t entries) const {
  if (image_->batmap) return false;  // it belongs right behind the table
  uint64_t end = image_->bat_offset + TableBytes(entries);
  if (end > footer_offset_) return false;
  for (const MetaRegion& region : image_->regions) {
    if (region.kind != "bat" && region.offset >= image_->bat_offset && region.offset < end) {
      return false;
    }
  }
  bool free = true;
  ForEachBlock(*image_, 0, image_->bat_entries,
               [&](uint64_t, uint32_t entry) { free = free && entry * kSectorSize >= end; });
  return free && HoldsOnlyFiller(*image_->source, image_->bat_offset + image_->BatBytes(), end);
}

Status VhdDriver::GrowTable(uint64_t entries) {
  if (entries > UINT32_MAX) return Error{ErrorCode::kTooLarge, "the block table is full", {}};
  if (!TableHasRoom(entries)) return MoveTable(entries);
  uint64_t end = image_->bat_offset + TableBytes(entries);
  IMG_RETURN_IF_ERROR(FillWithOnes(store_, image_->bat_offset + image_->bat_entries * 4, end));
  IMG_RETURN_IF_ERROR(store_->Sync());
  DynHeader header = image_->header;
  header.max_entries = static_cast<uint32_t>(entries);
  // All fields that change, and the checksum, lie in one sector.
  IMG_RETURN_IF_ERROR(store_->WriteAt(image_->header_offset, Seal(&header)));
  IMG_RETURN_IF_ERROR(store_->Sync());
  image_->header = image_->stored_header = header;
  image_->bat_entries = image_->bat_stored = entries;
  ListRegions(image_.get());
  return Ok();
}

// A longer copy of the table, and of the batmap behind it, at the end of the file.
Status VhdDriver::MoveTable(uint64_t entries) {
  const uint64_t at = footer_offset_, old_bytes = image_->bat_entries * 4;
  uint64_t map_sectors = 0;
  uint64_t end = at + TableBytes(entries);
  if (image_->batmap) {
    map_sectors = std::max<uint64_t>(image_->batmap->sectors, DivRoundUp(entries, 8 * kSectorSize));
    end += kBatmapHeaderSize + map_sectors * kSectorSize;
  }
  IMG_RETURN_IF_ERROR(MoveFooter(end));
  ByteVector piece(kPiece);
  for (uint64_t done = 0; done < old_bytes; done += piece.size()) {
    MutableBytes bytes = MutableBytes(piece).first(std::min(kPiece, old_bytes - done));
    IMG_RETURN_IF_ERROR(ReadPadded(*image_->source, image_->bat_offset + done, bytes));
    IMG_RETURN_IF_ERROR(store_->WriteAt(at + done, bytes));
  }
  IMG_RETURN_IF_ERROR(FillWithOnes(store_, at + old_bytes, at + TableBytes(entries)));
  if (image_->batmap) {
    BatmapHeader batmap = *image_->batmap;
    ByteVector map(map_sectors * kSectorSize);
    uint64_t kept = image_->BatmapUsable() ? image_->BatmapBytes() : 0;
    IMG_RETURN_IF_ERROR(ReadPadded(*image_->source, batmap.offset, MutableBytes(map).first(kept)));
    batmap.offset = at + TableBytes(entries) + kBatmapHeaderSize;
    batmap.sectors = static_cast<uint32_t>(map_sectors);
    batmap.checksum = MapChecksum(map, batmap.version);
    IMG_RETURN_IF_ERROR(store_->WriteAt(at + TableBytes(entries), Seal(&batmap)));
    IMG_RETURN_IF_ERROR(store_->WriteAt(batmap.offset, map));
    image_->batmap = batmap;
  }
  IMG_RETURN_IF_ERROR(store_->Sync());
  DynHeader header = image_->header;
  header.table_offset = at;
  header.max_entries = static_cast<uint32_t>(entries);
  IMG_RETURN_IF_ERROR(store_->WriteAt(image_->header_offset, Seal(&header)));
  IMG_RETURN_IF_ERROR(store_->Sync());
  image_->header = image_->stored_header = header;
  image_->bat_offset = at;
  image_->bat_entries = image_->bat_stored = entries;
  image_->batmap_offset = at + TableBytes(entries);
  ListRegions(image_.get());
  return Ok();
}

}  // namespace imgfsck::vhd
