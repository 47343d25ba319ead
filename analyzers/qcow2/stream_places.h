// SPDX-License-Identifier: Apache-2.0
// Where compressed streams begin and how many bytes each takes at least: finds those that lie on
// one another. Places are kept sorted in pieces, as differences of a few bytes each, so that memory
// stays a fraction of the tables that name them; the pieces are merged while they are looked
// through.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {

class StreamPlaces {
 public:
  void Add(uint64_t offset, uint64_t length);  // length: at least 1
  void Merge(StreamPlaces&& other);
  // Offsets of streams that begin before the end of one that begins earlier or at the same place;
  // ascending, each once, at most kMost. The order of additions makes no difference.
  static constexpr size_t kMost = 1 << 20;
  std::vector<uint64_t> Overlapping();

 private:
  struct Place {
    uint64_t offset, length;
  };
  class PieceReader;
  void Pack();

  std::vector<Place> fresh_;
  std::vector<ByteVector> pieces_;  // each: sorted, varints of differences and lengths
};

// The fewest bytes of a stream that decodes to one cluster, whatever is in it.
uint64_t ShortestStream(const Geometry& g, uint8_t compression_type);

}  // namespace imgfsck::qcow2
