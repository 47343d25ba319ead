// SPDX-License-Identifier: Apache-2.0
// One thing that is wrong with an image, and the collection that a check fills. Findings::Add is
// the only way to report. What a finding means in general stands in the registry (problem.h); here
// is where, how much, and the evidence.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "model/problem.h"

namespace imgfsck {

inline constexpr std::string_view kActiveLayer = "active";  // otherwise a snapshot's id

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
  std::vector<Claimant> also;        // every other claimant

  const ProblemInfo& info() const { return InfoOf(problem); }
  Severity severity_or_default() const { return severity.value_or(info().severity); }
  RepairClass repair_or_default() const { return repair.value_or(info().repair); }
  Effect effect_or_default() const { return effect.value_or(info().effect); }
  std::string Message() const;       // the registry's sentence, with the detail
};

// Collects findings. A finding that continues the previous one of its kind (same structure kind,
// layer and detail; host and guest ranges adjoining) is merged into it. At most `keep` findings of
// each problem are kept; totals count all. Not thread-safe: one collection a worker, then Merge()
// in a fixed order.
class Findings {
 public:
  static constexpr size_t kDefaultKeep = 10000;
  explicit Findings(size_t keep = kDefaultKeep) : keep_(keep) {}

  void Add(Finding finding);
  // True when another finding of this kind would be kept: lets a caller in a hot loop skip building
  // texts and only count with AddUncounted().
  bool WouldKeep(Problem problem) const;
  void AddBare(Problem problem, uint64_t units);  // counted, not kept
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
  uint64_t Units(Severity severity) const;     // sum over problems of that severity
  bool empty() const { return totals_.empty(); }
  size_t keep() const { return keep_; }

  // Corruptions first, then by structure position; ties keep their order. Stable and deterministic.
  void Sort();

 private:
  bool TryMerge(Finding& last, const Finding& next) const;
  size_t keep_;
  std::vector<Finding> kept_;
  std::map<Problem, Total> totals_;
  std::map<Problem, std::array<uint64_t, 4>> units_by_severity_;
  std::map<Problem, size_t> last_;  // index in kept_ of the last finding of a problem
};

}  // namespace imgfsck
