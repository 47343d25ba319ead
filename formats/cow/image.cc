// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/image.h"

#include <algorithm>
#include <bit>

#include "base/interrupt.h"
#include "formats/common/tolerant.h"

namespace imgfsck::cow {
namespace {

// Bytes of the bitmap read at once: few for a first question, more when a reader goes on.
constexpr uint64_t kLeastPiece = 512, kMostPiece = 64 * kKiB;

}  // namespace

HostRange Image::HostOf(uint64_t first, uint64_t last) const {
  return MakeHostRange(geometry.HostOf(first), GuestOf(first, last).length);
}

GuestRange Image::GuestOf(uint64_t first, uint64_t last) const {
  uint64_t begin = std::min(first * geometry.sector_size, geometry.virtual_size);
  uint64_t end = std::min(last * geometry.sector_size, geometry.virtual_size);
  return MakeGuestRange(begin, end - begin);
}

Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source) {
  ByteVector head(std::min(kLongestHeader, source.Size()));
  std::vector<HostRange> bad;
  ReadTolerant(source, 0, head, &bad);
  Resolution layouts = ResolveLayout(head, source.Size());
  auto image = ImageAs(source, layouts.best());
  image->layouts = std::move(layouts);
  image->head = std::move(head);
  image->unreadable = std::move(bad);
  return image;
}

std::unique_ptr<Image> ImageAs(const ByteSource& source, const Header& header) {
  auto image = std::make_unique<Image>();
  image->source = &source;
  image->file_size = source.Size();
  image->header = header;
  image->geometry = header.geometry();
  image->walkable = image->geometry.valid && image->geometry.virtual_size > 0;
  return image;
}

RunReader::RunReader(const ByteSource& source, const Geometry& geometry, uint64_t begin,
                     uint64_t end)
    : source_(source), geometry_(geometry), at_(begin), end_(std::min(end, geometry.sectors)) {}

// Makes the byte of at_ known: in piece_, or before zero_until_.
Status RunReader::Fill() {
  uint64_t byte = at_ / 8, end = DivRoundUp(std::min(end_, geometry_.tracked_sectors()), 8);
  uint64_t piece = std::clamp<uint64_t>(2 * piece_.size(), kLeastPiece, kMostPiece);
  piece_.clear();
  piece_begin_ = byte;
  zero_until_ = byte;
  uint64_t host = geometry_.bitmap_offset + byte, file = source_.Size();
  if (byte >= end || host >= file) {
    zero_until_ = DivRoundUp(end_, 8);
    return Ok();
  }
  IMG_RETURN_IF_ERROR(CheckStop());
  uint64_t stored_end = geometry_.bitmap_offset + end;
  if (auto extent = source_.ExtentAt(host)) {
    uint64_t extent_end = SaturatingAdd(extent->offset, extent->length);
    if (extent->hole && extent_end > host) {
      zero_until_ = std::min(extent_end, stored_end) - geometry_.bitmap_offset;
      return Ok();
    }
  }
  piece_.resize(std::min(piece, end - byte));
  ReadTolerant(source_, host, piece_, &bad_);
  zero_until_ = byte + piece_.size();
  return Ok();
}

Result<bool> RunReader::Next(Run* run) {
  if (at_ >= end_) return false;
  run->first = at_;
  bool first = true;
  while (at_ < end_) {
    uint64_t byte = at_ / 8;
    bool known = byte >= piece_begin_ && byte < zero_until_;
    if (!known) IMG_RETURN_IF_ERROR(Fill());
    uint64_t index = at_ / 8 - piece_begin_;
    bool in_piece = index < piece_.size();
    uint8_t bits = in_piece && at_ < geometry_.tracked_sectors() ? piece_[index] : 0;
    bool stored = (bits >> (at_ % 8) & 1) != 0;
    if (first) run->stored = stored;
    first = false;
    if (stored != run->stored) break;
    uint64_t step = 1;
    if (!in_piece) {
      step = 8 * zero_until_ - at_;
    } else if (at_ % 8 == 0 && (bits == 0 || bits == 0xFF)) {
      step = 8;
    }
    at_ += step;
    // Bits behind the last that counts do not make a run longer.
    if (stored && at_ > geometry_.tracked_sectors()) at_ = geometry_.tracked_sectors();
    at_ = std::min(at_, end_);
  }
  run->last = at_;
  return true;
}

}  // namespace imgfsck::cow
