// SPDX-License-Identifier: Apache-2.0
// A set of host bytes, kept as merged ranges: what metadata occupies and no guest data may touch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>

#include "base/checked.h"

namespace imgfsck::qcow2 {

class RangeSet {
 public:
  void Insert(uint64_t offset, uint64_t length) {
    uint64_t end = SaturatingAdd(offset, length);
    if (length == 0) return;
    auto at = ranges_.upper_bound(offset);
    if (at != ranges_.begin() && std::prev(at)->second >= offset) {
      --at;
      offset = at->first;
      end = std::max(end, at->second);
      at = ranges_.erase(at);
    }
    while (at != ranges_.end() && at->first <= end) {
      end = std::max(end, at->second);
      at = ranges_.erase(at);
    }
    ranges_[offset] = end;
  }

  void Erase(uint64_t offset, uint64_t length) {
    uint64_t end = SaturatingAdd(offset, length);
    auto at = ranges_.upper_bound(offset);
    if (at != ranges_.begin()) --at;
    while (at != ranges_.end() && at->first < end) {
      auto [begin, limit] = *at;
      if (limit <= offset) {
        ++at;
        continue;
      }
      at = ranges_.erase(at);
      if (begin < offset) ranges_[begin] = offset;
      if (limit > end) ranges_[end] = limit;
    }
  }

  bool Overlaps(uint64_t offset, uint64_t length) const {
    auto at = ranges_.upper_bound(offset);
    if (at != ranges_.end() && at->first < SaturatingAdd(offset, length)) return true;
    return at != ranges_.begin() && std::prev(at)->second > offset;
  }

 private:
  std::map<uint64_t, uint64_t> ranges_;  // begin -> end, disjoint and not touching
};

// The metadata of an image. L2 tables stand apart: they are rewritten in place.
struct MetadataMap {
  RangeSet fixed;   // header, L1 tables, refcount structures, snapshot table, bitmaps, LUKS header
  RangeSet tables;  // the active disk's L2 tables
  bool Overlaps(uint64_t offset, uint64_t length) const {
    return fixed.Overlaps(offset, length) || tables.Overlaps(offset, length);
  }
};

}  // namespace imgfsck::qcow2
