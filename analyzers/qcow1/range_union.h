// SPDX-License-Identifier: Apache-2.0
// The union of host ranges that are added in any order, and what of it was added more than once.
// Runs that adjoin are kept as one, so memory follows the fragmentation, not the number of ranges;
// it is never more than a small multiple of the table entries that the ranges come from.
#pragma once

#include <cstdint>
#include <vector>

namespace imgfsck::qcow1 {

struct Span {
  uint64_t begin = 0, end = 0;
  friend bool operator==(const Span&, const Span&) = default;
};

class RangeUnion {
 public:
  void Add(uint64_t begin, uint64_t end);  // empty ranges are ignored
  void Finish();                           // after the last Add, before the questions
  const std::vector<Span>& covered() const { return covered_; }    // ascending, apart
  const std::vector<Span>& repeated() const { return repeated_; }  // ascending, apart
  bool Covers(uint64_t begin, uint64_t end) const;                 // some byte of it

 private:
  void Compact();
  std::vector<Span> recent_, covered_, repeated_;
};

bool Overlaps(const std::vector<Span>& spans, uint64_t begin, uint64_t end);

}  // namespace imgfsck::qcow1
