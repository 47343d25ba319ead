// SPDX-License-Identifier: Apache-2.0
// An overlay's changes as patches. Suspects are the pages held and the base that no longer counts;
// they are compared with the base in windows of at most 1 MiB. A patch that reaches the end of a
// full window without filling it is looked at again in a window that starts with it.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/interrupt.h"
#include "io/overlay_impl.h"

namespace imgfsck {
namespace {

constexpr uint64_t kWindow = kMiB;  // bytes compared at once, and the longest patch
constexpr size_t kMergeGap = 64;    // fewer equal bytes than this do not end a patch

// The first index at or after `from` where the two differ; their length when there is none.
size_t NextDifference(Bytes a, Bytes b, size_t from) {
  constexpr size_t kStride = 512;
  const size_t end = a.size();
  while (from < end) {
    const size_t length = std::min(kStride, end - from);
    if (std::memcmp(a.data() + from, b.data() + from, length) == 0) {
      from += length;
      continue;
    }
    while (a[from] == b[from]) ++from;
    return from;
  }
  return end;
}

struct Span {
  size_t begin, end;
};

// The next run of differences at or after `from`, small gaps included. Empty at the end.
Span NextRun(Bytes a, Bytes b, size_t from) {
  const size_t begin = NextDifference(a, b, from);
  size_t end = begin;  // after the last difference
  for (size_t i = begin; i < a.size() && i < end + kMergeGap; ++i) {
    if (a[i] != b[i]) end = i + 1;
  }
  return {begin, end};
}

}  // namespace

// Where the view may differ from the base, from `from` on: the rest of a run of held pages, or a
// piece of the base that no longer counts. A length of 0 at the end.
HostRange Overlay::NextSuspect(uint64_t from) const {
  const uint64_t page = impl_->pages.NextHeld(from / kPage);
  const uint64_t held = std::max(from, SaturatingMul(page, kPage));
  const uint64_t cut_end = std::min(size_, base_.Size());
  for (uint64_t cut = std::max(from, impl_->base_counts); cut < std::min(cut_end, held);) {
    const auto extent = base_.ExtentAt(cut);
    const bool known = extent && extent->length > 0;
    const uint64_t end = known ? std::min(cut_end, cut + extent->length) : cut_end;
    if (!known || !extent->hole) return MakeHostRange(cut, end - cut);
    cut = end;
  }
  if (held >= size_) return MakeHostRange(size_, 0);
  const uint64_t held_end = std::min(size_, impl_->pages.NextMissing(page) * kPage);
  return MakeHostRange(held, held_end - held);
}

Status Overlay::ForEachPatch(const PatchVisitor& visit) const {
  ByteVector old_window, new_window;
  for (uint64_t at = 0;;) {
    const HostRange suspect = NextSuspect(at);
    if (suspect.length == 0) return Ok();
    const uint64_t start = suspect.offset.value;
    uint64_t length = std::min(suspect.length, kWindow);
    while (length < kWindow) {
      const HostRange next = NextSuspect(start + length);
      if (next.length == 0 || next.offset.value != start + length) break;
      length += std::min(next.length, kWindow - length);
    }
    IMG_RETURN_IF_ERROR(CheckStop());
    old_window.resize(length);
    new_window.resize(length);
    IMG_RETURN_IF_ERROR(ReadPadded(base_, start, old_window));
    IMG_RETURN_IF_ERROR(ReadExact(*this, start, new_window));
    const Bytes old_bytes(old_window), new_bytes(new_window);
    const uint64_t base_left = base_.Size() > start ? base_.Size() - start : 0;
    const size_t old_length = std::min(length, base_left);
    at = start + length;
    for (size_t i = 0; i < length;) {
      const Span run = NextRun(old_bytes, new_bytes, i);
      if (run.begin == length) break;
      if (length == kWindow && run.begin > 0 && run.end + kMergeGap > length) {
        at = start + run.begin;  // may go on beyond the window
        break;
      }
      const size_t old_end = std::clamp(old_length, run.begin, run.end);
      IMG_RETURN_IF_ERROR(visit(start + run.begin,
                                old_bytes.subspan(run.begin, old_end - run.begin),
                                new_bytes.subspan(run.begin, run.end - run.begin)));
      i = run.end;
    }
  }
}

}  // namespace imgfsck
