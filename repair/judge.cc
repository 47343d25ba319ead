// SPDX-License-Identifier: Apache-2.0
#include "repair/judge.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <set>
#include <tuple>

#include "base/text.h"

namespace imgfsck {
namespace {

constexpr size_t kMostReported = 8;  // new problems named; one is enough to refuse

// Where problems of at least one severity are.
struct Known {
  RangeSet host;
  std::map<std::string, RangeSet> guest;                     // by layer
  std::set<std::tuple<Problem, std::string>> without_place;  // problem and structure

  void Add(const Finding& finding) {
    if (finding.host)
      host.Add(finding.host->offset.value, std::max<uint64_t>(finding.host->length, 1));
    if (finding.guest) guest[finding.layer].Add(finding.guest->offset.value, finding.guest->length);
    if (!finding.host && !finding.guest) {
      without_place.emplace(finding.problem, finding.structure);
    }
  }
  bool Covers(const Finding& finding) {
    if (finding.host && host.Covers(finding.host->offset.value, finding.host->length)) return true;
    if (finding.guest) {
      auto layer = guest.find(finding.layer);
      if (layer != guest.end() &&
          layer->second.Covers(finding.guest->offset.value, finding.guest->length)) {
        return true;
      }
    }
    return without_place.contains({finding.problem, finding.structure});
  }
};

class Judge {
 public:
  Judge(const CheckReport& before, const CheckReport& after, RangeSet touched)
      : before_(before), after_(after), touched_(std::move(touched)) {
    for (const Finding& finding : before.findings.kept()) {
      for (Severity s : {Severity::kLeak, Severity::kCorruption}) {
        if (finding.severity_or_default() >= s) known_[static_cast<size_t>(s)].Add(finding);
      }
    }
  }

  bool IsNew(const Finding& finding) {
    const Severity severity = finding.severity_or_default();
    if (severity < Severity::kLeak) return false;
    if (known_[static_cast<size_t>(severity)].Covers(finding)) return false;
    // The list of what was known is not complete: then the sum must not have grown.
    auto total = before_.findings.totals().find(finding.problem);
    if (total != before_.findings.totals().end() && total->second.dropped > 0 &&
        after_.findings.Units(finding.problem) <= before_.findings.Units(finding.problem)) {
      return false;
    }
    return !Forgiven(finding);
  }

 private:
  // Compared by name and place; what the repair wrote itself reveals nothing.
  bool RevealedStructures() {
    if (revealed_) return *revealed_;
    std::set<std::pair<std::string, uint64_t>> seen;
    if (before_.rows) {
      for (StructurePiece& piece : before_.rows->Structures()) {
        seen.emplace(std::move(piece.name), piece.host.offset.value);
      }
    }
    revealed_ = false;
    if (!after_.rows) return false;
    for (StructurePiece& piece : after_.rows->Structures()) {
      const bool written = touched_.Overlaps(piece.host.offset.value, piece.host.length);
      if (written) written_.emplace(piece.name, piece.host);
      if (!written && !seen.contains({piece.name, piece.host.offset.value})) revealed_ = true;
    }
    return *revealed_;
  }
  bool Forgiven(const Finding& finding) {
    if (!RevealedStructures()) return false;
    auto structure = written_.find(finding.structure);
    if (!finding.host) return structure == written_.end();
    if (touched_.Overlaps(finding.host->offset.value, finding.host->length)) return false;
    // In a structure that was written, a place inside it that was not; but a count, say, whose
    // finding points at the cluster counted, may be what was written.
    return structure == written_.end() || structure->second.Overlaps(*finding.host);
  }

  const CheckReport& before_;
  const CheckReport& after_;
  RangeSet touched_;
  std::array<Known, 4> known_;
  std::optional<bool> revealed_;
  std::map<std::string, HostRange> written_;  // structures of `after` that the repair wrote to
};

std::string Describe(const Finding& finding) {
  std::string text = finding.Message();
  if (!finding.structure.empty()) text += fmt::format(" in {}", Printable(finding.structure));
  if (finding.host) text += fmt::format(" at {}", Hex(finding.host->offset.value));
  return text;
}

}  // namespace

std::vector<NewProblem> NewProblems(const CheckReport& before, const CheckReport& after,
                                    RangeSet touched, const std::set<Problem>& tolerated) {
  Judge judge(before, after, std::move(touched));
  std::vector<NewProblem> found;
  for (const Finding& finding : after.findings.kept()) {
    if (tolerated.contains(finding.problem) || !judge.IsNew(finding)) continue;
    found.push_back({finding.problem, Describe(finding)});
    if (found.size() == kMostReported) break;
  }
  // What was not kept of `after` can only be judged by its sum.
  for (const auto& [problem, total] : after.findings.totals()) {
    const bool bad = after.findings.Units(problem, Severity::kLeak) +
                         after.findings.Units(problem, Severity::kCorruption) >
                     0;
    if (total.dropped == 0 || !bad || tolerated.contains(problem)) continue;
    if (after.findings.Units(problem) > before.findings.Units(problem)) {
      found.push_back({problem, fmt::format("more than before: {}", InfoOf(problem).what)});
    }
  }
  return found;
}

}  // namespace imgfsck
