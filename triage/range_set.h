// SPDX-License-Identifier: Apache-2.0
// Ranges of a file, added in any order and as often as wanted; merged now and then, so that memory
// follows the gaps between them.
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
    ranges_.emplace_back(offset, SaturatingAdd(offset, length));
    if (ranges_.size() >= next_merge_) {
      Merge();
      next_merge_ = std::max<size_t>(2 * ranges_.size(), kFirstMerge);
    }
  }
  // (begin, end), ascending, neither overlapping nor adjoining.
  const std::vector<std::pair<uint64_t, uint64_t>>& Merge() {
    std::sort(ranges_.begin(), ranges_.end());
    size_t kept = 0;
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].first <= ranges_[kept].second) {
        ranges_[kept].second = std::max(ranges_[kept].second, ranges_[i].second);
      } else {
        ranges_[++kept] = ranges_[i];
      }
    }
    if (!ranges_.empty()) ranges_.resize(kept + 1);
    return ranges_;
  }

 private:
  static constexpr size_t kFirstMerge = 1 << 20;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
  size_t next_merge_ = kFirstMerge;
};

}  // namespace imgfsck
