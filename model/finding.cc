// SPDX-License-Identifier: Apache-2.0
#include "model/finding.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/checked.h"

namespace imgfsck {
namespace {

// `next` starts where `last` ends, or neither has a range.
template <class R>
bool Continues(const std::optional<R>& last, const std::optional<R>& next) {
  if (!last || !next) return !last && !next;
  auto end = CheckedAdd(last->offset.value, last->length);
  return end && *end == next->offset.value && CheckedAdd(*end, next->length);
}

bool Continues(const std::vector<Claimant>& last, const std::vector<Claimant>& next) {
  return std::equal(
      last.begin(), last.end(), next.begin(), next.end(), [](const Claimant& a, const Claimant& b) {
        return a.layer == b.layer && a.structure == b.structure && Continues(a.guest, b.guest);
      });
}

// Ranges first: they differ most often, and are the cheapest to compare. A finding without any
// range has no place to continue at, unless it says the same of the same structure.
bool Continues(const Finding& last, const Finding& next) {
  return Continues(last.host, next.host) && Continues(last.guest, next.guest) &&
         last.fixed == next.fixed && last.confidence == next.confidence &&
         last.severity == next.severity && last.repair == next.repair &&
         last.effect == next.effect && last.structure == next.structure &&
         last.layer == next.layer && last.detail == next.detail && last.evidence == next.evidence &&
         Continues(last.also, next.also);
}

template <class R>
void Extend(std::optional<R>& last, const std::optional<R>& next) {
  if (last) last->length += next->length;
}

void Absorb(Finding& last, const Finding& next) {
  Extend(last.host, next.host);
  Extend(last.guest, next.guest);
  for (size_t i = 0; i < last.also.size(); ++i) Extend(last.also[i].guest, next.also[i].guest);
  last.count = SaturatingAdd(last.count, next.count);
}

void AddTotal(Findings::Total& sum, const Findings::Total& more) {
  sum.findings = SaturatingAdd(sum.findings, more.findings);
  sum.units = SaturatingAdd(sum.units, more.units);
  sum.dropped = SaturatingAdd(sum.dropped, more.dropped);
}

// What comes first in a report.
auto Rank(const Finding& finding) {
  auto start = [](const auto& range) { return range ? range->offset.value : 0; };
  return std::tuple(-static_cast<int>(finding.severity_or_default()), finding.host.has_value(),
                    start(finding.host), finding.guest.has_value(), start(finding.guest));
}

}  // namespace

bool ComesBefore(const Finding& a, const Finding& b) { return Rank(a) < Rank(b); }

std::string Finding::Message() const {
  std::string message(info().what);
  if (!detail.empty()) message.append(": ").append(detail);
  return message;
}

Finding* Findings::Previous(State& state, Problem problem) {
  if (state.last_dropped) return &*state.last_dropped;
  // The caller may have changed kept(); an index that no longer fits is no previous finding.
  if (state.last_kept >= kept_.size() || kept_[state.last_kept].problem != problem) return nullptr;
  return &kept_[state.last_kept];
}

void Findings::Count(Problem problem, Severity severity, State& state, const Total& more) {
  AddTotal(totals_[problem], more);
  AddTotal(state.by_severity[static_cast<size_t>(severity)], more);
}

void Findings::Add(Finding finding) {
  const Problem problem = finding.problem;
  State& state = states_[problem];
  Total more{.findings = 1, .units = finding.count, .dropped = 0};
  Finding* previous = Previous(state, problem);
  if (previous != nullptr && Continues(*previous, finding)) {
    Absorb(*previous, finding);
    more.findings = 0;
    Count(problem, finding.severity_or_default(), state, more);
    return;
  }
  const bool keep = WouldKeep(problem);
  more.dropped = keep ? 0 : 1;
  Count(problem, finding.severity_or_default(), state, more);
  if (keep) {
    state.last_dropped.reset();
    state.last_kept = kept_.size();
    kept_.push_back(std::move(finding));
  } else {
    state.last_dropped = std::move(finding);
  }
}

bool Findings::WouldKeep(Problem problem) const {
  auto total = totals_.find(problem);
  if (total == totals_.end()) return keep_ > 0;
  return total->second.findings - total->second.dropped < keep_;
}

void Findings::AddBare(Problem problem, uint64_t units) {
  State& state = states_[problem];
  Count(problem, InfoOf(problem).severity, state, {.findings = 1, .units = units, .dropped = 1});
}

void Findings::Merge(Findings&& later) {
  // What `later` counted comes over from its totals; its kept findings are counted by Add, so
  // their share is taken off first.
  for (const Finding& finding : later.kept_) {
    auto& total = later.states_[finding.problem]
                      .by_severity[static_cast<size_t>(finding.severity_or_default())];
    total.findings -= std::min<uint64_t>(total.findings, 1);
    total.units -= std::min(total.units, finding.count);
  }
  for (Finding& finding : later.kept_) Add(std::move(finding));
  for (auto& [problem, state] : later.states_) {
    State& mine = states_[problem];
    for (size_t severity = 0; severity < state.by_severity.size(); ++severity) {
      if (state.by_severity[severity].findings == 0) continue;
      Count(problem, static_cast<Severity>(severity), mine, state.by_severity[severity]);
    }
    if (state.last_dropped) mine.last_dropped = std::move(state.last_dropped);
  }
  later = Findings(later.keep_);
}

uint64_t Findings::Units(Problem problem) const {
  auto total = totals_.find(problem);
  return total == totals_.end() ? 0 : total->second.units;
}

uint64_t Findings::Units(Problem problem, Severity severity) const {
  auto state = states_.find(problem);
  return state == states_.end() ? 0
                                : state->second.by_severity[static_cast<size_t>(severity)].units;
}

uint64_t Findings::Units(Severity severity) const {
  uint64_t sum = 0;
  for (const auto& [problem, state] : states_) {
    sum = SaturatingAdd(sum, state.by_severity[static_cast<size_t>(severity)].units);
  }
  return sum;
}

uint64_t Findings::FindingsOf(Severity severity) const {
  uint64_t sum = 0;
  for (const auto& [problem, state] : states_) {
    sum = SaturatingAdd(sum, state.by_severity[static_cast<size_t>(severity)].findings);
  }
  return sum;
}

void Findings::Sort() {
  std::stable_sort(kept_.begin(), kept_.end(), ComesBefore);
  for (auto& [problem, state] : states_) {
    state.last_kept = kNone;
    state.last_dropped.reset();
  }
}

}  // namespace imgfsck
