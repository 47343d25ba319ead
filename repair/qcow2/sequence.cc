// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/sequence.h"

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kMostMetadata = 1024;  // clusters of metadata that may lie between
constexpr uint64_t kEstablishedRun = 16;  // clusters in order before the order is believed

class Matcher {
 public:
  Matcher(const CheckState& state, const Orphans& orphans, const SequenceRun& run)
      : claims_(state.claims()), orphans_(orphans), run_(run) {}

  RunMatch Match() {
    RunMatch match = Between();
    if (match.confidence == 0 && run_.was_mapped) match = Following();
    if (match.confidence == 0 && run_.was_mapped) match = Preceding();
    return match;
  }

 private:
  bool IsData(uint64_t c) const { return orphans_.Lone(c) && !orphans_.IsTable(c); }
  bool IsOther(uint64_t c) const {
    return orphans_.IsTable(c) || (c < claims_.clusters() && claims_.IsMeta(c));
  }

  // Everything between the neighbours is lost data, exactly as much as is missing.
  RunMatch Between() const {
    if (!run_.left || !run_.right || *run_.right <= *run_.left) return {};
    uint64_t between = *run_.right - *run_.left - 1;
    if (between < run_.count || between > run_.count + kMostMetadata) return {};
    if (!run_.was_mapped && between != run_.count) return {};
    RunMatch match;
    for (uint64_t c = *run_.left + 1; c < *run_.right; ++c) {
      if (IsData(c)) {
        match.clusters.push_back(c);
      } else if (!IsOther(c)) {
        return {};
      }
    }
    if (match.clusters.size() != run_.count) return {};
    match.confidence = 0.9;
    match.evidence = "exactly these clusters lie between those of its neighbours";
    return match;
  }

  RunMatch Following() const {
    if (!run_.left || (run_.count > 1 && run_.left_run < kEstablishedRun)) return {};
    RunMatch match;
    uint64_t skipped = 0;
    for (uint64_t c = *run_.left + 1; match.clusters.size() < run_.count && skipped < kMostMetadata;
         ++c) {
      if (IsData(c)) {
        match.clusters.push_back(c);
      } else if (IsOther(c)) {
        ++skipped;
      } else {
        break;
      }
    }
    if (match.clusters.empty()) return {};
    match.clusters.resize(run_.count);
    match.confidence = 0.6;
    match.evidence = "they follow the clusters of the range before";
    return match;
  }

  RunMatch Preceding() const {
    if (!run_.right || (run_.count > 1 && run_.right_run < kEstablishedRun)) return {};
    RunMatch match;
    uint64_t skipped = 0;
    for (uint64_t c = *run_.right; c-- > 1;) {
      if (match.clusters.size() >= run_.count || skipped >= kMostMetadata) break;
      if (IsData(c)) {
        match.clusters.push_back(c);
      } else if (IsOther(c)) {
        ++skipped;
      } else {
        break;
      }
    }
    if (match.clusters.empty()) return {};
    match.clusters.resize(run_.count);
    std::ranges::reverse(match.clusters);
    match.confidence = 0.6;
    match.evidence = "they lie before the clusters of the range behind";
    return match;
  }

  const ClaimMap& claims_;
  const Orphans& orphans_;
  const SequenceRun& run_;
};

}  // namespace

RunMatch MatchRun(const CheckState& state, const Orphans& orphans, const SequenceRun& run) {
  if (run.count == 0) return {};
  return Matcher(state, orphans, run).Match();
}

}  // namespace imgfsck::qcow2
