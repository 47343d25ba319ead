// SPDX-License-Identifier: Apache-2.0
#include "extract/kept_bytes.h"

#include <algorithm>

#include "base/checked.h"

namespace imgfsck {

void KeptBytes::Keep(uint64_t offset, uint64_t length) {
  if (offset >= Size()) return;
  length = std::min(length, Size() - offset);
  kept_.Add(offset, length);
  stored_.Add(offset, length);
}

void KeptBytes::Replace(uint64_t offset, Bytes bytes) {
  if (offset >= Size() || bytes.empty()) return;
  bytes = bytes.first(std::min<uint64_t>(bytes.size(), Size() - offset));
  // What stood there before keeps its ends, as far as they are not covered.
  const uint64_t end = offset + bytes.size();
  for (auto it = replaced_.lower_bound(offset - std::min(offset, longest_));
       it != replaced_.end() && it->first < end;) {
    const uint64_t old = it->first, old_end = old + it->second.size();
    if (old_end <= offset) {
      ++it;
      continue;
    }
    const ByteVector all = std::move(it->second);
    it = replaced_.erase(it);
    const auto piece = [&](uint64_t from, uint64_t to) {
      if (from < to) {
        replaced_[from].assign(all.begin() + static_cast<ptrdiff_t>(from - old),
                               all.begin() + static_cast<ptrdiff_t>(to - old));
      }
    };
    piece(old, std::min(offset, old_end));
    piece(end, old_end);
  }
  replaced_[offset].assign(bytes.begin(), bytes.end());
  longest_ = std::max<uint64_t>(longest_, bytes.size());
  stored_.Add(offset, bytes.size());
}

void KeptBytes::Mark(uint64_t offset, uint64_t most) {
  if (offset >= Size()) return;
  const uint64_t length = std::min<uint64_t>({kLeftOut.size(), most, Size() - offset});
  marks_.emplace_back(offset, length);
  stored_.Add(offset, length);
}

void KeptBytes::KeepCleaned(uint64_t offset, Bytes stored, Bytes cleaned, uint64_t entry_size) {
  std::vector<uint64_t> good;
  for (uint64_t at = 0; at + entry_size <= stored.size(); at += entry_size) {
    const Bytes old = stored.subspan(at, entry_size), other = cleaned.subspan(at, entry_size);
    if (std::ranges::equal(old, other)) {
      good.push_back(at);
    } else if (!Keeps(offset + at, entry_size)) {
      Replace(offset + at, other);
    }
  }
  for (uint64_t at : good) Keep(offset + at, entry_size);
}

void KeptBytes::Finish() {
  std::ranges::sort(marks_);
  kept_.Ranges();
  stored_.Ranges();
}

uint64_t KeptBytes::kept_bytes() const {
  uint64_t sum = 0;
  for (const auto& [begin, end] : kept_.Ranges()) sum += end - begin;
  return sum;
}

// Lays `bytes`, which belong at `at`, over what `buffer` has of them.
void KeptBytes::Put(uint64_t at, Bytes bytes, uint64_t offset, MutableBytes buffer) const {
  const uint64_t begin = std::max(at, offset);
  const uint64_t end = std::min(at + bytes.size(), offset + buffer.size());
  if (begin >= end) return;
  std::ranges::copy(bytes.subspan(begin - at, end - begin), buffer.subspan(begin - offset).begin());
}

Result<size_t> KeptBytes::ReadAt(uint64_t offset, MutableBytes buffer) const {
  if (offset >= Size()) return size_t{0};
  buffer = buffer.first(std::min<uint64_t>(buffer.size(), Size() - offset));
  std::ranges::fill(buffer, uint8_t{0});
  const uint64_t end = offset + buffer.size();
  const auto& kept = kept_.Ranges();
  auto range = std::ranges::upper_bound(kept, offset, {}, &std::pair<uint64_t, uint64_t>::second);
  for (; range != kept.end() && range->first < end; ++range) {
    const uint64_t begin = std::max(range->first, offset);
    const uint64_t stop = std::min(range->second, end);
    IMG_RETURN_IF_ERROR(ReadPadded(base_, begin, buffer.subspan(begin - offset, stop - begin)));
  }
  const uint64_t first = offset - std::min(offset, longest_);
  for (auto it = replaced_.lower_bound(first); it != replaced_.end() && it->first < end; ++it) {
    Put(it->first, it->second, offset, buffer);
  }
  const uint64_t near = offset - std::min<uint64_t>(offset, kLeftOut.size());
  auto mark = std::ranges::lower_bound(marks_, near, {}, &std::pair<uint64_t, uint64_t>::first);
  for (; mark != marks_.end() && mark->first < end; ++mark) {
    Put(mark->first, AsBytes(kLeftOut.substr(0, mark->second)), offset, buffer);
  }
  return buffer.size();
}

Result<HostExtent> KeptBytes::ExtentAt(uint64_t offset) const {
  const auto& stored = stored_.Ranges();
  auto range = std::ranges::upper_bound(stored, offset, {}, &std::pair<uint64_t, uint64_t>::second);
  if (range == stored.end()) return HostExtent{offset, Size() - offset, true};
  if (range->first > offset) return HostExtent{offset, range->first - offset, true};
  return HostExtent{offset, range->second - offset, false};
}

}  // namespace imgfsck
