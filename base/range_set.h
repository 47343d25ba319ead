// SPDX-License-Identifier: Apache-2.0
// A set of bytes as merged half-open ranges: filled in any order, as often as wanted, and asked
// afterwards. Memory follows the gaps between the ranges: they are merged now and then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/checked.h"

namespace imgfsck {

class RangeSet {
 public:
  void Add(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    const uint64_t end = SaturatingAdd(offset, length);
    if (!ranges_.empty() && offset >= ranges_.back().first && offset <= ranges_.back().second) {
      ranges_.back().second = std::max(ranges_.back().second, end);
      return;
    }
    sorted_ = sorted_ && (ranges_.empty() || offset > ranges_.back().second);
    ranges_.emplace_back(offset, end);
    if (!sorted_ && ranges_.size() >= next_merge_) {
      Seal();
      next_merge_ = std::max<size_t>(2 * ranges_.size(), kFirstMerge);
    }
  }

  bool Empty() const { return ranges_.empty(); }
  // Some byte of [offset, offset + length) is in the set; of an empty range, the byte it stands at.
  bool Overlaps(uint64_t offset, uint64_t length) {
    const uint64_t end = SaturatingAdd(offset, std::max<uint64_t>(length, 1));
    auto range = FirstEndingAfter(offset);
    return range != ranges_.end() && range->first < end;
  }
  // Every byte of [offset, offset + length) is in the set.
  bool Covers(uint64_t offset, uint64_t length) {
    const uint64_t end = SaturatingAdd(offset, std::max<uint64_t>(length, 1));
    auto range = FirstEndingAfter(offset);
    return range != ranges_.end() && range->first <= offset && range->second >= end;
  }
  // The bytes of this set that `other` has not.
  RangeSet Without(RangeSet& other) {
    RangeSet rest;
    auto cut = other.Ranges().begin();
    for (auto [begin, end] : Ranges()) {
      while (cut != other.ranges_.end() && cut->second <= begin) ++cut;
      for (auto at = cut; at != other.ranges_.end() && at->first < end; ++at) {
        if (at->first > begin) rest.Add(begin, at->first - begin);
        begin = std::min(end, at->second);
      }
      rest.Add(begin, end - begin);
    }
    return rest;
  }
  // Ascending (begin, end) pairs that do not touch.
  const std::vector<std::pair<uint64_t, uint64_t>>& Ranges() {
    Seal();
    return ranges_;
  }

 private:
  void Seal() {
    if (sorted_) return;
    std::sort(ranges_.begin(), ranges_.end());
    size_t last = 0;
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].first <= ranges_[last].second) {
        ranges_[last].second = std::max(ranges_[last].second, ranges_[i].second);
      } else {
        ranges_[++last] = ranges_[i];
      }
    }
    ranges_.resize(last + 1);
    sorted_ = true;
  }
  std::vector<std::pair<uint64_t, uint64_t>>::const_iterator FirstEndingAfter(uint64_t offset) {
    Seal();
    return std::upper_bound(ranges_.begin(), ranges_.end(), offset,
                            [](uint64_t value, const auto& range) { return value < range.second; });
  }

  static constexpr size_t kFirstMerge = 1 << 20;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
  size_t next_merge_ = kFirstMerge;
  bool sorted_ = true;
};

}  // namespace imgfsck
