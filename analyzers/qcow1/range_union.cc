// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow1/range_union.h"

#include <algorithm>

namespace imgfsck::qcow1 {
namespace {

constexpr size_t kLeastBuffer = 1 << 16;  // ranges collected before they are sorted in

bool Before(const Span& a, const Span& b) { return a.begin < b.begin; }

// Sorts and joins what overlaps or adjoins.
void Normalise(std::vector<Span>* spans) {
  std::sort(spans->begin(), spans->end(), Before);
  size_t kept = 0;
  for (const Span& span : *spans) {
    if (kept > 0 && span.begin <= (*spans)[kept - 1].end) {
      (*spans)[kept - 1].end = std::max((*spans)[kept - 1].end, span.end);
    } else {
      (*spans)[kept++] = span;
    }
  }
  spans->resize(kept);
}

}  // namespace

void RangeUnion::Add(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  if (!recent_.empty() && recent_.back().end == begin) {
    recent_.back().end = end;
    return;
  }
  if (recent_.size() >= std::max(kLeastBuffer, covered_.size())) Compact();
  recent_.push_back({begin, end});
}

void RangeUnion::Compact() {
  std::sort(recent_.begin(), recent_.end(), Before);
  std::vector<Span> all(recent_.size() + covered_.size());
  std::merge(recent_.begin(), recent_.end(), covered_.begin(), covered_.end(), all.begin(), Before);
  recent_.clear();
  covered_.clear();
  for (const Span& span : all) {
    if (covered_.empty() || span.begin > covered_.back().end) {
      covered_.push_back(span);
      continue;
    }
    Span& last = covered_.back();
    if (span.begin < last.end) repeated_.push_back({span.begin, std::min(span.end, last.end)});
    last.end = std::max(last.end, span.end);
  }
  Normalise(&repeated_);
}

void RangeUnion::Finish() {
  Compact();
  covered_.shrink_to_fit();
}

bool RangeUnion::Covers(uint64_t begin, uint64_t end) const {
  return Overlaps(covered_, begin, end);
}

bool Overlaps(const std::vector<Span>& spans, uint64_t begin, uint64_t end) {
  auto next = std::upper_bound(spans.begin(), spans.end(), Span{begin, begin}, Before);
  if (next != spans.end() && next->begin < end) return begin < end;
  return next != spans.begin() && std::prev(next)->end > begin && begin < end;
}

}  // namespace imgfsck::qcow1
