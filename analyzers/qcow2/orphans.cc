// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/orphans.h"

#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"

namespace imgfsck::qcow2 {

Orphans::Orphans(const CheckState& state) : state_(state) {
  const Image& image = *state.image;
  if (!state.claims().AnyConflict()) return;
  for (uint64_t i = 0; i < image.refcount_table.size(); ++i) {
    const uint64_t offset = BlockOffset(image, i);
    if (offset == 0 || !state.claims().IsConflict(offset >> image.geometry.cluster_bits)) continue;
    if (!HoldsCounts(image, state.claims(), i)) no_counts_.insert(i);
  }
}

const CountRun* Orphans::Find(uint64_t cluster) const {
  if (!Trusted(cluster)) return nullptr;
  const std::vector<CountRun>& runs = state_.leaks;  // ascending
  auto after = std::upper_bound(runs.begin(), runs.end(), cluster,
                                [](uint64_t c, const CountRun& run) { return c < run.cluster; });
  if (after == runs.begin()) return nullptr;
  const CountRun& run = *std::prev(after);
  return cluster - run.cluster < run.length ? &run : nullptr;
}

uint64_t Orphans::Missing(uint64_t cluster) const {
  const CountRun* run = Find(cluster);
  const auto released = released_.find(cluster);
  uint64_t missing = run == nullptr ? 0 : run->stored - run->computed;
  if (released != released_.end()) missing += released->second;
  auto taken = taken_.find(cluster);
  return taken == taken_.end() ? missing : missing - std::min(missing, taken->second);
}

bool Orphans::Lone(uint64_t cluster) const {
  const CountRun* run = Find(cluster);
  if (taken_.contains(cluster)) return false;
  const auto released = released_.find(cluster);
  if (released != released_.end()) return state_.claims().Count(cluster) == released->second;
  return run != nullptr && run->computed == 0;
}

std::vector<uint64_t> Orphans::DataIn(uint64_t begin, uint64_t end, size_t limit) const {
  std::vector<uint64_t> found;
  const std::vector<CountRun>& runs = state_.leaks;
  auto run = std::upper_bound(runs.begin(), runs.end(), begin,
                              [](uint64_t c, const CountRun& r) { return c < r.cluster; });
  if (run != runs.begin()) --run;
  for (; run != runs.end() && run->cluster < end; ++run) {
    if (run->computed != 0) continue;
    uint64_t last = std::min(end, run->cluster + run->length);
    for (uint64_t c = std::max(begin, run->cluster); c < last; ++c) {
      if (found.size() >= limit) return found;
      if (!taken_.contains(c) && !IsTable(c) && Trusted(c)) found.push_back(c);
    }
  }
  return found;
}

bool Reclaims(const Image& image, const Orphans& orphans, const Entry& entry) {
  EntryClaim claim = ClaimOf(image, entry);
  if (claim.kind == EntryClaim::Kind::kNone) return false;
  for (uint64_t c = claim.first; c <= claim.last; ++c) {
    // A stream may overhang the end of the file by less than a cluster.
    if (c < image.ClusterCount() && orphans.Missing(c) == 0) return false;
  }
  return true;
}

FoundTable Appraise(const Image& image, const Orphans& orphans, Bytes bytes) {
  const Geometry& g = image.geometry;
  FoundTable found;
  bool bare = true;
  uint64_t steps_up = 0, previous = 0;
  for (uint64_t i = 0; i < g.l2_entries; ++i) {
    Entry entry = LoadEntry(g, bytes, i);
    if (entry.empty()) continue;
    if (EntryInvalid(image, entry)) return {};
    if (g.extended_l2 && !entry.compressed() && (entry.alloc_bits() & entry.zero_bits()) != 0) {
      return {};
    }
    EntryClaim claim = ClaimOf(image, entry);
    if (claim.kind == EntryClaim::Kind::kNone) continue;
    ++found.entries;
    if (!Reclaims(image, orphans, entry)) continue;
    uint64_t host = claim.first << g.cluster_bits;
    steps_up += host >= previous;
    previous = host;
    found.first_host = found.reclaims == 0 ? host : std::min(found.first_host, host);
    found.last_host = std::max(found.last_host, host);
    ++found.reclaims;
    bare &= !entry.compressed() && !entry.copied() && orphans.Missing(claim.first) == 1;
  }
  found.bare = bare && found.reclaims > 0;
  found.ordered = steps_up * 10 >= found.reclaims * 9;
  return found;
}

}  // namespace imgfsck::qcow2
