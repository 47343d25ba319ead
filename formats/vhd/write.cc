// SPDX-License-Identifier: Apache-2.0
// The writing half of the driver. See driver.h for the order of writes.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/mapping.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kZeroPiece = 64 * kKiB;

void SetBits(MutableBytes bitmap, uint64_t from, uint64_t to) {
  for (uint64_t i = from; i < to; ++i) SetBit(bitmap, i, true);
}

}  // namespace

Status VhdDriver::CheckWritable() const {
  if (store_ != nullptr) return Ok();
  return Error{ErrorCode::kPermission, "the image is open for reading only", {}};
}

Status VhdDriver::Flush() {
  IMG_RETURN_IF_ERROR(CheckWritable());
  return store_->Sync();
}

Status VhdDriver::Write(uint64_t offset, Bytes bytes) {
  IMG_RETURN_IF_ERROR(CheckWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, bytes.size()));
  if (bytes.empty()) return Ok();
  if (!sparse()) return store_->WriteAt(offset, bytes);
  // Whole sectors only from here on: what is missing at the edges is read.
  uint64_t begin = AlignDown(offset, kSectorSize);
  uint64_t end = AlignUp(offset + bytes.size(), kSectorSize);
  if (begin == offset && end == offset + bytes.size()) return WriteSparse(offset, bytes);
  ByteVector whole(end - begin);
  MutableBytes buffer = whole;
  IMG_RETURN_IF_ERROR(Read(begin, buffer.first(kSectorSize)));
  IMG_RETURN_IF_ERROR(Read(end - kSectorSize, buffer.last(kSectorSize)));
  std::ranges::copy(bytes, buffer.subspan(offset - begin).begin());
  return WriteSparse(begin, whole);
}

// Runs of blocks that have no place yet get it together: two syncs a run, not a block.
Status VhdDriver::WriteSparse(uint64_t offset, Bytes bytes) {
  const uint64_t block_size = image_->block_size;
  while (!bytes.empty()) {
    uint64_t index = offset / block_size, within = offset % block_size;
    IMG_ASSIGN_OR_RETURN(uint64_t start, BlockStart(index));
    uint64_t length = std::min<uint64_t>(bytes.size(), block_size - within);
    if (start != kNoOffset) {
      IMG_RETURN_IF_ERROR(WriteBlock(start, within, bytes.first(length)));
    } else {
      uint64_t last = index;
      while (length < bytes.size()) {
        IMG_ASSIGN_OR_RETURN(uint64_t next, BlockStart(last + 1));
        if (next != kNoOffset) break;
        ++last;
        length = std::min<uint64_t>(bytes.size(), (last + 1) * block_size - offset);
      }
      IMG_RETURN_IF_ERROR(AllocateBlocks(MakeGuestRange(offset, length), bytes.first(length)));
    }
    offset += length;
    bytes = bytes.subspan(length);
  }
  return Ok();
}

// A bit that is set too early shows zeros: harmless in a dynamic disk, which reads zeros anyway. In
// a differencing disk it would hide the parent, so there the data must be durable first.
Status VhdDriver::WriteBlock(uint64_t start, uint64_t within, Bytes bytes) {
  IMG_ASSIGN_OR_RETURN(ByteVector bitmap, BitmapOf(start));
  uint64_t data = start + image_->bitmap_bytes + within;
  uint64_t from = within / kSectorSize, to = from + bytes.size() / kSectorSize;
  bool marked = BitAt(bitmap, from) && BitRunEnd(bitmap, from, to) == to;
  if (marked) return store_->WriteAt(data, bytes);
  if (!differencing()) {
    IMG_RETURN_IF_ERROR(MarkWritten(start, &bitmap, within, bytes.size()));
    IMG_RETURN_IF_ERROR(store_->Sync());
    return store_->WriteAt(data, bytes);
  }
  IMG_RETURN_IF_ERROR(store_->WriteAt(data, bytes));
  IMG_RETURN_IF_ERROR(store_->Sync());
  return MarkWritten(start, &bitmap, within, bytes.size());
}

Status VhdDriver::MarkWritten(uint64_t start, ByteVector* bitmap, uint64_t within,
                              uint64_t length) {
  uint64_t from = within / kSectorSize, to = (within + length) / kSectorSize;
  SetBits(*bitmap, from, to);
  // Only the sectors of the bitmap that changed.
  uint64_t first = AlignDown(from / 8, kSectorSize), end = AlignUp(DivRoundUp(to, 8), kSectorSize);
  return store_->WriteAt(start + first, Bytes(*bitmap).subspan(first, end - first));
}

Status VhdDriver::MoveFooter(uint64_t offset) {
  Footer footer = image_->footer;
  uint64_t old_size = store_->Size();
  auto moved = store_->WriteAt(offset, Seal(&footer));
  if (moved) moved = store_->Sync();
  if (!moved) {
    // The old footer still stands; only the file may have grown.
    if (store_->Size() > old_size) {
      if (auto shrunk = store_->SetSize(old_size); !shrunk) return shrunk;
    }
    return moved;
  }
  footer_offset_ = offset;
  image_->trailing.offset = offset;
  image_->trailing.length = kFooterSize;
  image_->file_size = store_->Size();
  return Ok();
}

// Gives the blocks under `guest` a place and writes `bytes`, or zeros when there are none, there.
Status VhdDriver::AllocateBlocks(GuestRange guest, Bytes bytes) {
  const uint64_t block_size = image_->block_size, at = footer_offset_;
  const uint64_t first = guest.offset.value / block_size;
  const uint64_t count = DivRoundUp(guest.end(), block_size) - first;
  const uint64_t end = at + count * image_->BlockLength();
  if (end / kSectorSize >= kUnallocated) {
    return Error{ErrorCode::kNoSpace, "the file has reached the largest size of the format", {}};
  }
  IMG_RETURN_IF_ERROR(MoveFooter(end));
  ByteVector entries(count * 4);
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t start = at + i * image_->BlockLength();
    uint64_t from = std::max(guest.offset.value, (first + i) * block_size);
    uint64_t to = std::min(guest.end(), (first + i + 1) * block_size);
    Bytes piece = bytes.empty() ? bytes : bytes.subspan(from - guest.offset.value, to - from);
    IMG_RETURN_IF_ERROR(FillBlock(start, MakeGuestRange(from, to - from), piece));
    StoreBe(&entries[i * 4], static_cast<uint32_t>(start / kSectorSize));
  }
  IMG_RETURN_IF_ERROR(store_->Sync());
  return store_->WriteAt(image_->bat_offset + first * 4, entries);
}

// What is not written reads as zeros: the file has just grown there, but for the old footer, which
// lies under the first bitmap.
Status VhdDriver::FillBlock(uint64_t start, GuestRange guest, Bytes bytes) {
  const uint64_t within = guest.offset.value % image_->block_size;
  ByteVector bitmap(image_->bitmap_bytes);
  if (differencing()) {
    SetBits(bitmap, within / kSectorSize, (within + guest.length) / kSectorSize);
  } else {
    // The rest is zero on disk, too: later writes need not touch the bitmap.
    uint64_t block_begin = guest.offset.value - within;
    SetBits(bitmap, 0, std::min(image_->block_size, size_ - block_begin) / kSectorSize);
  }
  IMG_RETURN_IF_ERROR(store_->WriteAt(start, bitmap));
  if (bytes.empty()) return Ok();
  return store_->WriteAt(start + image_->bitmap_bytes + within, bytes);
}

Status VhdDriver::Zero(uint64_t offset, uint64_t length) {
  IMG_RETURN_IF_ERROR(CheckWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, length));
  if (!sparse()) return store_->WriteZeros(offset, length);
  const uint64_t end = offset + length;
  while (offset < end) {
    // Parts of sectors are written; whole sectors can be punched.
    uint64_t within = offset % image_->block_size;
    uint64_t piece = std::min(end - offset, image_->block_size - within);
    if (uint64_t odd = offset % kSectorSize; odd != 0) {
      piece = std::min(piece, kSectorSize - odd);
    } else if (piece >= kSectorSize) {
      piece = AlignDown(piece, kSectorSize);
    }
    if (piece % kSectorSize == 0) {
      IMG_RETURN_IF_ERROR(ZeroBlock(offset / image_->block_size, within, piece));
    } else {
      ByteVector old(piece);
      IMG_RETURN_IF_ERROR(Read(offset, old));
      if (!AllZero(old)) IMG_RETURN_IF_ERROR(Write(offset, ByteVector(piece)));
    }
    offset += piece;
  }
  return Ok();
}

Status VhdDriver::ZeroBlock(uint64_t index, uint64_t within, uint64_t length) {
  IMG_ASSIGN_OR_RETURN(uint64_t start, BlockStart(index));
  if (start != kNoOffset) return ZeroAllocated(start, within, length);
  if (!differencing()) return Ok();
  uint64_t guest = index * image_->block_size + within;
  IMG_ASSIGN_OR_RETURN(bool zero, BackingIsZero(guest, length));
  if (zero) return Ok();
  return AllocateBlocks(MakeGuestRange(guest, length), {});
}

Status VhdDriver::ZeroAllocated(uint64_t start, uint64_t within, uint64_t length) {
  IMG_RETURN_IF_ERROR(store_->WriteZeros(start + image_->bitmap_bytes + within, length));
  if (!differencing()) return Ok();  // zeros whatever the bits say
  IMG_ASSIGN_OR_RETURN(ByteVector bitmap, BitmapOf(start));
  uint64_t from = within / kSectorSize, to = (within + length) / kSectorSize;
  if (BitAt(bitmap, from) && BitRunEnd(bitmap, from, to) == to) return Ok();
  IMG_RETURN_IF_ERROR(store_->Sync());
  return MarkWritten(start, &bitmap, within, length);
}

Result<bool> VhdDriver::BackingIsZero(uint64_t offset, uint64_t length) const {
  ByteVector buffer(std::min(length, kZeroPiece));
  while (length > 0) {
    MutableBytes piece = MutableBytes(buffer).first(std::min<uint64_t>(length, buffer.size()));
    IMG_RETURN_IF_ERROR(ReadUnallocated(offset, piece));
    if (!AllZero(piece)) return false;
    offset += piece.size();
    length -= piece.size();
  }
  return true;
}

// A dynamic disk forgets what the sectors held; their place in the file stays, without bytes. In a
// differencing disk nothing is given back: the parent must not show through.
Status VhdDriver::Discard(uint64_t offset, uint64_t length) {
  IMG_RETURN_IF_ERROR(CheckWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, length));
  uint64_t begin = AlignUp(offset, kSectorSize);
  uint64_t end = AlignDown(offset + length, kSectorSize);
  if (begin >= end || differencing()) return Ok();
  return Zero(begin, end - begin);
}

}  // namespace imgfsck::vhd
