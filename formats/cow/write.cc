// SPDX-License-Identifier: Apache-2.0
// The writing half of the driver; driver.h says in which order things become durable.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/cow/create.h"
#include "formats/cow/driver.h"

namespace imgfsck::cow {
namespace {

constexpr size_t kMostPending = 65536;  // bitmap bytes held back before they are written

}  // namespace

Status CowDriver::RequireWritable(uint64_t offset, uint64_t length) const {
  if (store_ == nullptr) {
    return Error{ErrorCode::kPermission, "the image is open for reading only", {}};
  }
  IMG_RETURN_IF_ERROR(CheckRange(offset, length));
  if (length > 0 && (offset + length - 1) / geometry_.sector_size >= geometry_.tracked_sectors()) {
    return Error{ErrorCode::kUnsupported,
                 "this old layout has no bits for the last sectors of the disk", offset};
  }
  return Ok();
}

Status CowDriver::FillSector(uint64_t sector, MutableBytes buffer) {
  uint64_t offset = sector * geometry_.sector_size;
  uint64_t length = std::min<uint64_t>(buffer.size(), VirtualSize() - offset);
  return Read(offset, buffer.first(length));
}

Status CowDriver::Write(uint64_t offset, Bytes bytes) {
  IMG_RETURN_IF_ERROR(RequireWritable(offset, bytes.size()));
  uint64_t size = geometry_.sector_size;
  while (!bytes.empty()) {
    uint64_t first = offset / size, lead = offset % size;
    // Whole sectors in one go; a part of one is completed with what it reads as now. The end of
    // the disk counts as the end of a sector.
    uint64_t whole = lead != 0 ? 0 : bytes.size() / size * size;
    bool to_end = lead == 0 && offset + bytes.size() == VirtualSize();
    uint64_t length = to_end ? bytes.size() : whole;
    uint64_t last = first;
    if (length > 0) {
      last = DivRoundUp(offset + length, size);
      IMG_RETURN_IF_ERROR(store_->WriteAt(geometry_.HostOf(first), bytes.first(length)));
    } else {
      length = std::min<uint64_t>(size - lead, bytes.size());
      last = first + 1;
      ByteVector sector(size);
      IMG_RETURN_IF_ERROR(FillSector(first, sector));
      std::memcpy(sector.data() + lead, bytes.data(), length);
      IMG_RETURN_IF_ERROR(store_->WriteAt(geometry_.HostOf(first), sector));
    }
    for (uint64_t at = first; at < last;) {
      IMG_ASSIGN_OR_RETURN(Run run, RunAt(at, last));
      for (; at < run.last; ++at) {
        if (!run.stored) pending_[at / 8] |= static_cast<uint8_t>(1u << (at % 8));
      }
    }
    if (pending_.size() > kMostPending) IMG_RETURN_IF_ERROR(Publish());
    bytes = bytes.subspan(length);
    offset += length;
  }
  return Ok();
}

Status CowDriver::Zero(uint64_t offset, uint64_t length) {
  IMG_RETURN_IF_ERROR(RequireWritable(offset, length));
  ByteVector zeros(std::min<uint64_t>(length, kMiB));
  while (length > 0) {
    IMG_ASSIGN_OR_RETURN(BlockStatus status, StatusAt(offset, length));
    uint64_t part = std::min<uint64_t>(status.length, zeros.size());
    bool reads_zeros = status.state == MappingState::kUnallocated && header_.path.empty();
    if (!reads_zeros) IMG_RETURN_IF_ERROR(Write(offset, Bytes(zeros).first(part)));
    offset += part;
    length -= part;
  }
  return Ok();
}

Status CowDriver::Publish() {
  if (pending_.empty()) return Ok();
  IMG_RETURN_IF_ERROR(store_->Sync());
  for (auto it = pending_.begin(); it != pending_.end();) {
    // Bytes of the bitmap that follow each other go in one write, and none besides them.
    uint64_t begin = it->first;
    ByteVector bits;
    for (; it != pending_.end() && it->first == begin + bits.size(); ++it) {
      bits.push_back(it->second);
    }
    ByteVector stored(bits.size());
    uint64_t host = geometry_.bitmap_offset + begin;
    IMG_RETURN_IF_ERROR(ReadPadded(*store_, host, stored));
    for (size_t i = 0; i < bits.size(); ++i) stored[i] |= bits[i];
    IMG_RETURN_IF_ERROR(store_->WriteAt(host, stored));
  }
  pending_.clear();
  return Ok();
}

Status CowDriver::Flush() {
  if (store_ == nullptr) return Ok();
  IMG_RETURN_IF_ERROR(Publish());
  return store_->Sync();
}

Status CowDriver::Empty() {
  if (store_ == nullptr) return RequireWritable(0, 0);
  pending_.clear();
  ByteVector zeros(std::min<uint64_t>(geometry_.used_bitmap_bytes(), kMiB));
  for (uint64_t done = 0; done < geometry_.used_bitmap_bytes(); done += zeros.size()) {
    uint64_t length = std::min<uint64_t>(zeros.size(), geometry_.used_bitmap_bytes() - done);
    IMG_RETURN_IF_ERROR(
        store_->WriteAt(geometry_.bitmap_offset + done, Bytes(zeros).first(length)));
  }
  IMG_RETURN_IF_ERROR(store_->Sync());
  // No bit names the data any more; its space goes back, the length stays.
  uint64_t data = std::min(store_->Size(), geometry_.data_offset);
  IMG_RETURN_IF_ERROR(store_->WriteZeros(data, store_->Size() - data));
  return store_->Sync();
}

Status CowDriver::SetBacking(const std::optional<BackingReference>& backing) {
  if (store_ == nullptr) return RequireWritable(0, 0);
  Header header = header_;
  header.path = backing ? backing->name : std::string();
  if (!header.spec().qemu && backing) {
    if (!backing->format.empty() && backing->format != "raw") {
      return Error{ErrorCode::kInvalid, "User-Mode Linux reads a backing file as raw bytes", {}};
    }
    if (backing->file_size && *backing->file_size != header.size) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("the backing file has {} bytes, the disk {}: User-Mode Linux would "
                               "not open it",
                               *backing->file_size, header.size),
                   {}};
    }
  }
  if (backing && backing->mtime_seconds) {
    header.mtime = static_cast<uint32_t>(*backing->mtime_seconds);
  }
  // What was copied out of the old backing file must be marked before the new one shows.
  IMG_RETURN_IF_ERROR(Flush());
  IMG_RETURN_IF_ERROR(RewriteHeader(*store_, header));
  header_ = header;
  return Ok();
}

}  // namespace imgfsck::cow
