// SPDX-License-Identifier: Apache-2.0
// The bits of one bitmap in memory, in pieces of one cluster each, as its table will name them.
// Pieces that are all clear or all set take no memory.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"

namespace imgfsck::qcow2 {

class BitmapBits {
 public:
  struct Piece {
    bool ones = false;  // of an empty `bytes`: all set instead of all clear
    ByteVector bytes;   // one cluster, least significant bit first; or empty
  };
  BitmapBits() = default;
  // For a disk of `size` bytes; `granularity` and `piece_bytes` are powers of two.
  BitmapBits(uint64_t size, uint64_t granularity, uint64_t piece_bytes);

  void Set(uint64_t guest_offset, uint64_t length);  // every bit that the range touches
  void Clear();
  void Resize(uint64_t size);               // new bits are clear
  void MergeFrom(const BitmapBits& other);  // granularities may differ
  std::vector<GuestRange> Ranges() const;   // ascending, merged

  uint64_t bits() const { return bits_; }
  std::vector<Piece>& pieces() { return pieces_; }
  // Drops bits past the end, and the memory of pieces that are all clear or all set.
  void Tidy();

 private:
  bool Get(uint64_t bit) const;
  void SetBits(uint64_t first, uint64_t end);
  uint64_t piece_bits() const { return piece_bytes_ * 8; }
  uint64_t size_ = 0, granularity_ = 1, piece_bytes_ = 1, bits_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace imgfsck::qcow2
