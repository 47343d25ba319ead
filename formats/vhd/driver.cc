// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/driver.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/bat.h"
#include "formats/vhd/header.h"
#include "formats/vhd/links.h"
#include "formats/vhd/mapping.h"

namespace imgfsck::vhd {
namespace {

Error Refuse(std::string why) {
  return {ErrorCode::kInvalid, std::move(why) + "; imgfsck can tell more", std::nullopt};
}

bool SameEssentials(const Footer& a, const Footer& b) {
  return a.current_size == b.current_size && a.disk_type == b.disk_type &&
         a.data_offset == b.data_offset && a.geometry == b.geometry && a.unique_id == b.unique_id &&
         a.creator_app == b.creator_app;
}

Status CheckSparse(const Image& image) {
  uint64_t size = image.VirtualSize();
  if (size > kMaxSectors * kSectorSize) return Refuse("the disk is larger than 2040 GiB");
  if (image.header_state != SlotState::kSound) return Refuse("the dynamic header is damaged");
  if (image.header_offset != image.footer.data_offset) {
    return Refuse("the dynamic header is not where the footer says");
  }
  const DynHeader& h = image.stored_header;
  if (h.version != kVersion1) return Refuse("the dynamic header has an unknown version");
  if (!BlockSizeSane(h.block_size)) return Refuse("the block size is impossible");
  if (h.table_offset != image.bat_offset || h.max_entries != image.bat_entries) {
    return Refuse("the dynamic header has impossible fields");
  }
  if (DivRoundUp(size, image.block_size) > image.bat_entries) {
    return Refuse("the block table is too short for the disk");
  }
  if (image.bat_stored < image.bat_entries) return Refuse("the block table reaches past the file");
  if (image.batmap && image.batmap->key_flag != 0) {
    return Error{ErrorCode::kUnsupported, "the data is encrypted by XenServer", std::nullopt};
  }
  return Ok();
}

Status CheckReadable(const Image& image) {
  bool as_stored = image.footer_from.confidence == 1 || image.leading.sound();
  if (!as_stored || image.footer_from.origin > Origin::kCopy) {
    return Refuse("the footer is missing or damaged");
  }
  if (image.footer.version >> 16 != kVersion1 >> 16)
    return Refuse("the footer has an unknown version");
  Kind kind = image.kind;
  bool type_fits = image.footer.type() == DiskType::kFixed          ? kind == Kind::kFixed
                   : image.footer.type() == DiskType::kDynamic      ? kind == Kind::kDynamic
                   : image.footer.type() == DiskType::kDifferencing ? kind == Kind::kDifferencing
                                                                    : false;
  if (!type_fits) return Refuse("the disk type in the footer does not fit the file");
  if (image.sparse()) return CheckSparse(image);
  if (image.VirtualSize() > image.DataEnd()) return Refuse("the file is shorter than the disk");
  return Ok();
}

// Every block must lie between the metadata and the footer, where the allocator goes on.
Status CheckBlocksForWriting(const Image& image) {
  uint64_t bad = 0;
  ForEachBlock(image, 0, image.bat_entries, [&](uint64_t, uint32_t entry) {
    uint64_t start = uint64_t{entry} * kSectorSize;
    bad += !image.ClearOfMetadata(start) ||
           !RangeFits(start, image.BlockLength(), image.trailing.offset);
  });
  if (bad > 0) return Refuse(fmt::format("{} blocks lie at impossible places", bad));
  return Ok();
}

Status CheckForWriting(const Image& image) {
  if (!image.trailing.sound() || !image.trailing_at_end ||
      !IsAligned(image.trailing.offset, kSectorSize)) {
    return Refuse("the footer at the end of the file is missing, damaged or misplaced");
  }
  if (image.footer.saved_state != 0) {
    return Refuse("the disk belongs to a suspended machine");
  }
  if (!image.sparse()) return Ok();
  if (!image.leading.sound() || !SameEssentials(image.leading.footer, image.trailing.footer)) {
    return Refuse("the footer and its copy differ");
  }
  if (image.block_size < kMinBlockSize) return Refuse("programs disagree on blocks this small");
  return CheckBlocksForWriting(image);
}

}  // namespace

VhdDriver::VhdDriver(std::unique_ptr<Image> image, ByteStore* store)
    : image_(std::move(image)),
      store_(store),
      size_(image_->VirtualSize()),
      footer_offset_(image_->DataEnd()) {}

Result<std::unique_ptr<Driver>> VhdDriver::Open(const ByteSource& source, ByteStore* store,
                                                const OpenOptions& options) {
  auto policy = ParseSizePolicy(options.size_policy);
  if (!policy) {
    return Error{ErrorCode::kInvalid, "the size policy is chs, current_size or auto", {}};
  }
  if (!options.snapshot.empty()) {
    return Error{ErrorCode::kUnsupported, "this format has no snapshots", {}};
  }
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source, {.policy = *policy, .search = false}));
  IMG_RETURN_IF_ERROR(CheckReadable(*image));
  if (options.writable) {
    IMG_CHECK(store != nullptr);
    IMG_RETURN_IF_ERROR(CheckForWriting(*image));
  }
  return std::unique_ptr<Driver>(
      new VhdDriver(std::move(image), options.writable ? store : nullptr));
}

Capabilities VhdDriver::capabilities() const {
  bool writable = store_ != nullptr;
  return {.write = writable, .zero = writable, .discard = writable, .grow = writable};
}

std::optional<BackingReference> VhdDriver::Backing() const {
  if (!differencing()) return std::nullopt;
  auto candidates = ParentCandidates(*image_);
  return BackingReference{candidates.empty() ? "" : candidates.front(),
                          IsNull(image_->header.parent_id) ? "raw" : "vpc"};
}

Status VhdDriver::CheckRange(uint64_t offset, uint64_t length) const {
  if (RangeFits(offset, length, size_)) return Ok();
  return Error{ErrorCode::kInvalid, "the range reaches past the end of the disk", {}};
}

Result<uint64_t> VhdDriver::BlockStart(uint64_t index) const {
  IMG_ASSIGN_OR_RETURN(uint32_t entry, BatEntryAt(*image_->source, *image_, index));
  if (entry == kUnallocated) return kNoOffset;
  uint64_t start = uint64_t{entry} * kSectorSize;
  if (!image_->ClearOfMetadata(start) ||
      !RangeFits(start, image_->BlockLength(), image_->source->Size())) {
    return Error{ErrorCode::kInvalid, fmt::format("block {} lies at an impossible place", index),
                 image_->bat_offset + index * 4};
  }
  return start;
}

Result<ByteVector> VhdDriver::BitmapOf(uint64_t start) const {
  ByteVector bitmap(image_->bitmap_bytes);
  IMG_RETURN_IF_ERROR(ReadPadded(*image_->source, start, bitmap));
  return bitmap;
}

Status VhdDriver::ReadUnallocated(uint64_t offset, MutableBytes buffer) const {
  if (differencing() && backing_) return backing_(offset, buffer);
  std::ranges::fill(buffer, uint8_t{0});
  return Ok();
}

Status VhdDriver::ReadBlock(uint64_t index, uint64_t within, MutableBytes buffer) const {
  uint64_t guest = index * image_->block_size + within;
  IMG_ASSIGN_OR_RETURN(uint64_t start, BlockStart(index));
  if (start == kNoOffset) return ReadUnallocated(guest, buffer);
  IMG_ASSIGN_OR_RETURN(ByteVector bitmap, BitmapOf(start));
  uint64_t data = start + image_->bitmap_bytes;
  if (bitmap.empty()) return ReadPadded(*image_->source, data + within, buffer);
  const uint64_t end = within + buffer.size();
  for (uint64_t at = within; at < end;) {
    uint64_t sector = at / kSectorSize;
    uint64_t run_end = BitRunEnd(bitmap, sector, DivRoundUp(end, kSectorSize)) * kSectorSize;
    uint64_t length = std::min(run_end, end) - at;
    MutableBytes piece = buffer.subspan(at - within, length);
    if (BitAt(bitmap, sector)) {
      IMG_RETURN_IF_ERROR(ReadPadded(*image_->source, data + at, piece));
    } else {
      IMG_RETURN_IF_ERROR(ReadUnallocated(guest + (at - within), piece));
    }
    at += length;
  }
  return Ok();
}

Status VhdDriver::Read(uint64_t offset, MutableBytes buffer) {
  IMG_RETURN_IF_ERROR(CheckRange(offset, buffer.size()));
  if (!sparse()) return ReadPadded(*image_->source, offset, buffer);
  while (!buffer.empty()) {
    uint64_t within = offset % image_->block_size;
    uint64_t length = std::min<uint64_t>(buffer.size(), image_->block_size - within);
    IMG_RETURN_IF_ERROR(ReadBlock(offset / image_->block_size, within, buffer.first(length)));
    offset += length;
    buffer = buffer.subspan(length);
  }
  return Ok();
}

Result<BlockStatus> VhdDriver::StatusAt(uint64_t offset, uint64_t limit) {
  if (limit == 0 || offset >= size_) {
    return Error{ErrorCode::kInvalid, "the range reaches past the end of the disk", {}};
  }
  const uint64_t end = offset + std::min(limit, size_ - offset);
  if (!sparse()) return BlockStatus{end - offset, MappingState::kData, offset};
  uint64_t index = offset / image_->block_size, within = offset % image_->block_size;
  IMG_ASSIGN_OR_RETURN(uint64_t start, BlockStart(index));
  uint64_t block_end = std::min(end, (index + 1) * image_->block_size);
  if (start == kNoOffset) {
    BatReader reader(*image_, index + 1, DivRoundUp(end, image_->block_size));
    bool more = true;
    for (BatReader::Run run; more && reader.Next(&run);) {
      auto stop = std::ranges::find_if(run.values, [](uint32_t e) { return e != kUnallocated; });
      uint64_t free = static_cast<uint64_t>(stop - run.values.begin());
      block_end = std::min(end, (run.first + free) * image_->block_size);
      more = run.zeros == 0 && stop == run.values.end();
    }
    return BlockStatus{block_end - offset, Elsewhere(), {}};
  }
  IMG_ASSIGN_OR_RETURN(ByteVector bitmap, BitmapOf(start));
  uint64_t data = start + image_->bitmap_bytes + within;
  if (bitmap.empty()) return BlockStatus{block_end - offset, MappingState::kData, data};
  uint64_t sector = within / kSectorSize;
  uint64_t sectors = DivRoundUp(block_end - index * image_->block_size, kSectorSize);
  uint64_t run_end = index * image_->block_size + BitRunEnd(bitmap, sector, sectors) * kSectorSize;
  uint64_t length = std::min(run_end, block_end) - offset;
  if (BitAt(bitmap, sector)) return BlockStatus{length, MappingState::kData, data};
  return BlockStatus{length, Elsewhere(), {}};
}

}  // namespace imgfsck::vhd
