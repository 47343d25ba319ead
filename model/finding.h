// SPDX-License-Identifier: Apache-2.0
// One thing that is wrong with an image, and the collection that a check fills. Findings::Add is
// the only way to report. What a finding means in general stands in the registry (problem.h); here
// is where, how much, and the evidence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "model/problem.h"

namespace imgfsck {

inline constexpr std::string_view kActiveLayer = "active";      // otherwise a snapshot's id
inline constexpr std::string_view kUnlistedLayer = "unlisted";  // a snapshot that no list shows

// Another owner of the same host range.
struct Claimant {
  std::string layer;  // "active", a snapshot's id, or empty for metadata
  std::optional<GuestRange> guest;
  std::string structure;
};

struct Finding {
  Problem problem{};
  std::string structure;             // "refcount-block[3]", "l2[7]", "header" …
  std::optional<HostRange> host;     // the bytes concerned in the file
  std::optional<GuestRange> guest;   // the bytes of the guest's disk concerned
  std::string layer;                 // whose guest bytes: "active", a snapshot's id, or empty
  uint64_t count = 1;                // units (clusters, entries …) this finding stands for
  std::string detail;                // this case's values: "stored 2, referenced 1"; may be empty
  std::string evidence;              // why we think so, where it is a judgement
  double confidence = 1;             // 0–1
  std::optional<Severity> severity;  // where it differs from the registry's
  std::optional<RepairClass> repair;
  std::optional<Effect> effect;
  bool fixed = false;
  std::vector<Claimant> also;  // every other claimant

  const ProblemInfo& info() const { return InfoOf(problem); }
  Severity severity_or_default() const { return severity.value_or(info().severity); }
  RepairClass repair_or_default() const { return repair.value_or(info().repair); }
  Effect effect_or_default() const { return effect.value_or(info().effect); }
  std::string Message() const;  // "the registry's sentence: the detail"
};

// The order of a report: the worse severity first, then by place: host offset, guest offset (what
// has no place comes first).
bool ComesBefore(const Finding& a, const Finding& b);

// Collects findings. A finding that continues the previous one of its problem is merged into it:
// same structure, layer, detail, evidence and judgement, and host ranges, guest ranges and other
// claimants each adjoining (or all absent). At most `keep` findings of each problem are kept;
// totals count all. Not thread-safe: one collection a worker, then Merge() in a fixed order.
class Findings {
 public:
  static constexpr size_t kDefaultKeep = 10000;
  explicit Findings(size_t keep = kDefaultKeep) : keep_(keep) {}

  // Beyond `keep`, nothing is allocated: the finding is only counted.
  void Add(Finding finding);
  // True when another finding of this kind would be kept: lets a caller in a hot loop skip building
  // texts and only count with AddBare().
  bool WouldKeep(Problem problem) const;
  void AddBare(Problem problem, uint64_t units);  // counted, not kept
  // As if what `later` was given had been given to this collection (as far as `later` kept it).
  void Merge(Findings&& later);

  const std::vector<Finding>& kept() const { return kept_; }
  std::vector<Finding>& kept() { return kept_; }
  struct Total {
    uint64_t findings = 0;  // after merging
    uint64_t units = 0;     // sum of count
    uint64_t dropped = 0;   // findings not kept
  };
  const std::map<Problem, Total>& totals() const { return totals_; }
  bool Has(Problem problem) const { return totals_.contains(problem); }
  uint64_t Units(Problem problem) const;
  uint64_t Units(Severity severity) const;  // sum over problems of that severity
  uint64_t Units(Problem problem, Severity severity) const;
  uint64_t FindingsOf(Severity severity) const;  // after merging
  bool empty() const { return totals_.empty(); }
  size_t keep() const { return keep_; }

  // By ComesBefore(); ties keep their order. Later additions do not merge across it.
  void Sort();

 private:
  static constexpr size_t kNone = SIZE_MAX;
  struct State {
    size_t last_kept = kNone;  // index in kept_ of the previous finding, if that was kept
    std::optional<Finding> last_dropped;  // the previous finding, if that was not
    std::array<Total, 4> by_severity;
  };
  Finding* Previous(State& state, Problem problem);
  void Count(Problem problem, Severity severity, State& state, const Total& more);

  size_t keep_;
  std::vector<Finding> kept_;
  std::map<Problem, Total> totals_;
  std::map<Problem, State> states_;
};

}  // namespace imgfsck
