// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/snapshot_search.h"

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kSnapshotSearchMaxOrphans = 1 << 20;  // clusters, 40 bytes of each

}  // namespace

bool SnapshotSearch::MakesSense(const Snapshot& s) const {
  const uint64_t cluster_size = image_.geometry.cluster_size;
  return IsSnapshotId(s.id) && s.l1_table_offset != 0 && s.l1_size != 0 &&
         s.extra_data_size <= kMaxSnapshotExtra && uint64_t{s.l1_size} * 8 <= kMaxL1Bytes &&
         IsAligned(s.l1_table_offset, cluster_size) &&
         RangeFits(s.l1_table_offset, uint64_t{s.l1_size} * 8,
                   AlignUp(image_.file_size, cluster_size));
}

// By the lengths stored where they lead to another entry, or to the end; else by the text.
std::optional<Snapshot> SnapshotSearch::EntryAt(uint64_t offset, bool last, bool* as_stored) const {
  auto follows = [&](const Snapshot& s) {
    if (last) return s.name.find('\0') == std::string::npos;
    const uint64_t at = AlignUp(offset + s.length, 8);
    auto next = ParseSnapshotAt(bytes_, at);
    if (next && MakesSense(*next)) return true;
    next = ReparseSnapshotAt(bytes_, at);
    return next && MakesSense(*next);
  };
  auto stored = ParseSnapshotAt(bytes_, offset), reread = ReparseSnapshotAt(bytes_, offset);
  const bool usable = stored && !stored->extra_guessed && MakesSense(*stored);
  if (usable && follows(*stored)) return stored;
  if (reread && MakesSense(*reread) && (follows(*reread) || !usable)) {
    *as_stored = false;
    return reread;
  }
  return usable ? stored : std::nullopt;
}

FoundSnapshots SnapshotSearch::Read(uint64_t offset, uint64_t count) const {
  FoundSnapshots found;
  found.offset = found.end = offset;
  uint64_t at = offset;
  while (found.entries.size() < std::min(count, kMaxSnapshots) &&
         at - offset < kMaxSnapshotTableBytes) {
    const bool last = found.entries.size() + 1 == count;
    auto entry = EntryAt(at, last, &found.as_stored);
    if (!entry) break;
    found.end = at + entry->length;
    at = AlignUp(found.end, 8);
    found.entries.push_back(std::move(*entry));
  }
  return found;
}

std::optional<FoundSnapshots> SnapshotSearch::TableAt(uint64_t offset, uint64_t count) const {
  const unsigned bits = image_.geometry.cluster_bits;
  auto unused = [&](uint64_t at) {
    return at < image_.file_size && state_.claims().Count(at >> bits) == 0 &&
           StoredCount(image_, at >> bits) != 0;
  };
  if (offset == 0 || !IsAligned(offset, image_.geometry.cluster_size) || !unused(offset)) {
    return std::nullopt;
  }
  FoundSnapshots found = Read(offset, count);
  const bool complete =
      count > kMaxSnapshots ? !found.entries.empty() : found.entries.size() == count;
  const bool lost = std::ranges::all_of(
      found.entries, [&](const Snapshot& s) { return unused(s.l1_table_offset); });
  if (!complete || !lost) return std::nullopt;
  return found;
}

std::optional<FoundSnapshots> SnapshotSearch::Find(uint64_t hint, uint64_t count) const {
  if (!state_.counts_compared || count == 0) return std::nullopt;
  if (auto found = TableAt(AlignDown(hint, image_.geometry.cluster_size), count)) return found;
  std::optional<FoundSnapshots> found;
  uint64_t left = kSnapshotSearchMaxOrphans;
  for (const CountRun& run : state_.leaks) {
    if (run.computed != 0) continue;
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      if (left-- == 0) return std::nullopt;
      auto table = TableAt(c << image_.geometry.cluster_bits, count);
      if (!table) continue;
      if (found) return std::nullopt;
      found = std::move(table);
    }
  }
  return found;
}

}  // namespace imgfsck::qcow2
