// SPDX-License-Identifier: Apache-2.0
// Ranges of a disk that somebody asks about: sorted, merged, and asked which of them overlap.
#pragma once

#include <algorithm>
#include <vector>

#include "base/units.h"

namespace imgfsck {

class WantedRanges {
 public:
  explicit WantedRanges(std::vector<GuestRange> ranges) {
    std::ranges::sort(ranges, {}, [](const GuestRange& range) { return range.offset.value; });
    for (const GuestRange& range : ranges) {
      if (range.length == 0) continue;
      if (ranges_.empty() || ranges_.back().end() < range.offset.value) {
        ranges_.push_back(range);
      } else if (range.end() > ranges_.back().end()) {
        ranges_.back().length = range.end() - ranges_.back().offset.value;
      }
    }
  }

  // Calls use(begin, end) for every part of [begin, end) that is wanted, ascending.
  template <class Use>
  void Overlaps(uint64_t begin, uint64_t end, Use use) const {
    auto at = std::ranges::upper_bound(ranges_, begin, {},
                                       [](const GuestRange& range) { return range.end(); });
    for (; at != ranges_.end() && at->offset.value < end; ++at) {
      use(std::max(begin, at->offset.value), std::min(end, at->end()));
    }
  }
  bool Any(uint64_t begin, uint64_t end) const {
    bool any = false;
    Overlaps(begin, end, [&](uint64_t, uint64_t) { any = true; });
    return any;
  }

 private:
  std::vector<GuestRange> ranges_;  // ascending, neither overlapping nor adjoining
};

}  // namespace imgfsck
