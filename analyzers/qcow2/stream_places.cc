// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/stream_places.h"

#include <algorithm>
#include <queue>

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kPiece = 1 << 18;  // places

void PutVarint(uint64_t value, ByteVector* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<uint8_t>(value) | 0x80);
    value >>= 7;
  }
  out->push_back(static_cast<uint8_t>(value));
}

}  // namespace

class StreamPlaces::PieceReader {
 public:
  explicit PieceReader(const ByteVector* piece) : piece_(piece) {}

  bool Next(Place* place) {
    if (at_ >= piece_->size()) return false;
    offset_ += Varint();
    *place = {offset_, Varint()};
    return true;
  }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const uint8_t byte = (*piece_)[at_++];
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  }

  const ByteVector* piece_;
  size_t at_ = 0;
  uint64_t offset_ = 0;
};

void StreamPlaces::Add(uint64_t offset, uint64_t length) {
  fresh_.push_back({offset, length});
  if (fresh_.size() >= kPiece) Pack();
}

void StreamPlaces::Pack() {
  if (fresh_.empty()) return;
  std::ranges::sort(fresh_, [](const Place& a, const Place& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.length < b.length;
  });
  ByteVector piece;
  uint64_t last = 0;
  for (const Place& place : fresh_) {
    PutVarint(place.offset - last, &piece);
    PutVarint(place.length, &piece);
    last = place.offset;
  }
  piece.shrink_to_fit();
  pieces_.push_back(std::move(piece));
  fresh_.clear();
}

void StreamPlaces::Merge(StreamPlaces&& other) {
  other.Pack();
  for (ByteVector& piece : other.pieces_) pieces_.push_back(std::move(piece));
  other.pieces_.clear();
}

std::vector<uint64_t> StreamPlaces::Overlapping() {
  Pack();
  std::vector<PieceReader> readers;
  for (const ByteVector& piece : pieces_) readers.emplace_back(&piece);
  using Head = std::pair<Place, size_t>;
  auto later = [](const Head& a, const Head& b) { return a.first.offset > b.first.offset; };
  std::priority_queue<Head, std::vector<Head>, decltype(later)> heads(later);
  auto advance = [&](size_t piece) {
    Place place;
    if (readers[piece].Next(&place)) heads.push({place, piece});
  };
  for (size_t i = 0; i < readers.size(); ++i) advance(i);
  std::vector<uint64_t> found;
  uint64_t end = 0;
  while (!heads.empty() && found.size() < kMost) {
    const auto [place, piece] = heads.top();
    heads.pop();
    if (place.offset < end && (found.empty() || found.back() != place.offset)) {
      found.push_back(place.offset);
    }
    end = std::max(end, place.offset + place.length);
    advance(piece);
  }
  return found;
}

uint64_t ShortestStream(const Geometry& g, uint8_t compression_type) {
  if (compression_type == kZstd) {
    // A frame's header, and a block of four bytes for each 128 KiB.
    constexpr uint64_t kHeader = 6, kBlock = 4, kBlockYields = 128 << 10;
    return kHeader + kBlock * DivRoundUp(g.cluster_size, kBlockYields);
  }
  // Three bits to begin with; then a match of 258 bytes takes two bits at least.
  constexpr uint64_t kLongestMatch = 258;
  return DivRoundUp(3 + 2 * DivRoundUp(g.cluster_size - 1, kLongestMatch), 8);
}

}  // namespace imgfsck::qcow2
