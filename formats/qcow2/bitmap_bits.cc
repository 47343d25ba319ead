// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/bitmap_bits.h"

#include <algorithm>

#include "base/checked.h"

namespace imgfsck::qcow2 {
namespace {

void SetInBytes(MutableBytes bytes, uint64_t first, uint64_t end) {
  for (; first < end && first % 8 != 0; ++first) {
    bytes[first / 8] = static_cast<uint8_t>(bytes[first / 8] | 1u << first % 8);
  }
  if (first < end) {
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(first / 8),
              bytes.begin() + static_cast<ptrdiff_t>(end / 8), uint8_t{0xFF});
    first = AlignDown(end, 8);
  }
  for (; first < end; ++first) {
    bytes[first / 8] = static_cast<uint8_t>(bytes[first / 8] | 1u << first % 8);
  }
}

}  // namespace

BitmapBits::BitmapBits(uint64_t size, uint64_t granularity, uint64_t piece_bytes)
    : granularity_(granularity), piece_bytes_(piece_bytes) {
  Resize(size);
}

void BitmapBits::SetBits(uint64_t first, uint64_t end) {
  while (first < end) {
    Piece& piece = pieces_[first / piece_bits()];
    uint64_t begin = first % piece_bits(), base = first - begin;
    uint64_t limit = std::min(end - base, piece_bits());
    first = base + limit;
    if (piece.bytes.empty() && piece.ones) continue;
    if (begin == 0 && limit == piece_bits()) {
      piece = {true, {}};
      continue;
    }
    if (piece.bytes.empty()) piece.bytes.assign(piece_bytes_, 0);
    SetInBytes(piece.bytes, begin, limit);
  }
}

void BitmapBits::Set(uint64_t offset, uint64_t length) {
  uint64_t end = std::min(SaturatingAdd(offset, length), size_);
  if (offset < end) SetBits(offset / granularity_, DivRoundUp(end, granularity_));
}

void BitmapBits::Clear() {
  for (Piece& piece : pieces_) piece = {};
}

bool BitmapBits::Get(uint64_t bit) const {
  const Piece& piece = pieces_[bit / piece_bits()];
  if (piece.bytes.empty()) return piece.ones;
  uint64_t in_piece = bit % piece_bits();
  return (piece.bytes[in_piece / 8] >> in_piece % 8 & 1) != 0;
}

void BitmapBits::Resize(uint64_t size) {
  Tidy();
  // A last piece that is all set must not grow set bits.
  if (!pieces_.empty() && pieces_.back().bytes.empty() && pieces_.back().ones) {
    uint64_t first = (pieces_.size() - 1) * piece_bits();
    pieces_.back() = {false, ByteVector(piece_bytes_)};
    SetInBytes(pieces_.back().bytes, 0, bits_ - first);
  }
  size_ = size;
  bits_ = DivRoundUp(size, granularity_);
  pieces_.resize(DivRoundUp(DivRoundUp(bits_, 8), piece_bytes_));
  Tidy();
}

void BitmapBits::Tidy() {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    ByteVector& bytes = pieces_[i].bytes;
    if (bytes.empty()) continue;
    uint64_t used = std::min(bits_ - i * piece_bits(), piece_bits());
    for (uint64_t bit = used; bit < piece_bits() && bit % 8 != 0; ++bit) {
      bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] & ~(1u << bit % 8));
    }
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(DivRoundUp(used, 8)), bytes.end(), uint8_t{0});
    if (AllZero(bytes)) {
      pieces_[i] = {};
    } else if (used == piece_bits() &&
               std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0xFF; })) {
      pieces_[i] = {true, {}};
    }
  }
}

std::vector<GuestRange> BitmapBits::Ranges() const {
  std::vector<GuestRange> ranges;
  auto add = [&](uint64_t first, uint64_t end) {
    uint64_t begin = first * granularity_, limit = std::min(end * granularity_, size_);
    if (!ranges.empty() && ranges.back().end() == begin) {
      ranges.back().length += limit - begin;
    } else {
      ranges.push_back(MakeGuestRange(begin, limit - begin));
    }
  };
  for (size_t i = 0; i < pieces_.size(); ++i) {
    uint64_t base = i * piece_bits(), end = std::min(bits_, base + piece_bits());
    if (pieces_[i].bytes.empty()) {
      if (pieces_[i].ones) add(base, end);
      continue;
    }
    for (uint64_t bit = base; bit < end; ++bit) {
      if (bit % 8 == 0 && pieces_[i].bytes[(bit - base) / 8] == 0) {
        bit += 7;
      } else if (Get(bit)) {
        add(bit, bit + 1);
      }
    }
  }
  return ranges;
}

void BitmapBits::MergeFrom(const BitmapBits& other) {
  for (const GuestRange& range : other.Ranges()) Set(range.offset.value, range.length);
}

}  // namespace imgfsck::qcow2
