// SPDX-License-Identifier: Apache-2.0
#include "triage/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <unordered_set>

#include "base/text.h"
#include "report/words.h"

namespace imgfsck {
namespace {

constexpr size_t kMostNames = 3;  // of reasons, or of kinds of findings, in a line

// A chain that cannot be read as it was meant is damage of the image that needs it.
bool IsBroken(const ChainEdge& edge) {
  if (edge.state != LinkState::kFound) return true;
  return std::ranges::any_of(edge.troubles, [](LinkTrouble trouble) {
    return trouble != LinkTrouble::kMoved && trouble != LinkTrouble::kShorter;
  });
}

bool AnyBrokenLink(const TriageResult& result, size_t file) {
  return std::ranges::any_of(result.chain.edges_of[file],
                             [&](size_t e) { return IsBroken(result.chain.edges[e]); });
}

// From its first byte on, or by a plan.
bool LooksEncrypted(const ImageFacts& facts) {
  return facts.entropy.plan_repeats > 0 || facts.entropy.head > 0;
}

Severity SeverityOf(const RuleHit& hit) {
  for (Severity s : {Severity::kCorruption, Severity::kLeak, Severity::kWarning}) {
    if (hit.severity == ToText(s)) return s;
  }
  return Severity::kInfo;
}

bool HitFrom(const RuleFacts& rule, Severity least) {
  return std::ranges::any_of(rule.hits,
                             [&](const RuleHit& hit) { return SeverityOf(hit) >= least; });
}

bool AnyHit(const TriageResult& result, const ImageFacts& facts) {
  return std::ranges::any_of(facts.rules,
                             [&](const RuleFacts& rule) { return HitFrom(rule, result.fail_on); });
}

// Names of the reasons of that weight, each once, in the order of the table.
std::vector<std::string> ReasonsOf(const TriageResult& result, size_t file, Weight weight) {
  std::vector<std::string> names;
  for (const Reason& reason : result.files[file].facts.reasons) {
    if (WeightOf(reason.code, result.policy) != weight) continue;
    std::string name(InfoOf(reason.code).name);
    if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

// Codes of the listed findings of that severity, each once.
std::vector<std::string> KindsOf(const CheckFacts& check, Severity severity) {
  std::vector<std::string> kinds;
  std::set<std::string_view> seen;
  for (const Finding& finding : check.findings) {
    if (finding.severity_or_default() != severity) continue;
    if (seen.insert(finding.info().code).second) kinds.emplace_back(finding.info().code);
  }
  return kinds;
}

std::string Some(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMostNames); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > kMostNames) text += fmt::format(" and {} more", names.size() - kMostNames);
  return text;
}

class Why {
 public:
  void Add(std::string_view text) {
    if (text.empty()) return;
    if (!text_.empty()) text_ += "; ";
    text_ += text;
  }
  void AddDamage(const CheckFacts& check, Severity severity, std::string_view one,
                 std::string_view many) {
    const uint64_t units = check.Units(severity);
    if (units == 0) return;
    const std::string kinds = Some(KindsOf(check, severity));
    Add(Plural(units, one, many) + (kinds.empty() ? "" : ": ") + kinds);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace

std::string_view ToText(Attention attention) {
  switch (attention) {
    case Attention::kUnsafe:
      return "unsafe";
    case Attention::kUndecidable:
      return "undecidable";
    case Attention::kDamaged:
      return "damaged";
    case Attention::kSound:
      return "sound";
    case Attention::kNotAnImage:
      return "not-an-image";
  }
  return "";
}

Attention AttentionFor(const TriageResult& result, size_t index) {
  const TriagedFile& file = result.files[index];
  const bool examined = file.is_image() || file.facts.identity.kind == FileKind::kUnknown ||
                        std::ranges::any_of(file.facts.reasons, [](const Reason& reason) {
                          return reason.code == ReasonCode::kNamedImage;
                        });
  if (!examined) return Attention::kNotAnImage;
  if (file.verdict == Verdict::kUnsafe) return Attention::kUnsafe;
  if (file.verdict == Verdict::kUndecidable) return Attention::kUndecidable;
  const CheckFacts& check = file.facts.check;
  const bool damaged = check.AnyFrom(result.fail_on) || !check.trouble.empty() ||
                       LooksEncrypted(file.facts) || AnyHit(result, file.facts) ||
                       AnyBrokenLink(result, index);
  return damaged ? Attention::kDamaged : Attention::kSound;
}

size_t DependentsOf(const TriageResult& result, size_t file) {
  std::vector<size_t> pending = {file};
  std::unordered_set<size_t> seen = {file};
  while (!pending.empty() && seen.size() <= kMostDependents) {
    const size_t at = pending.back();
    pending.pop_back();
    for (size_t child : result.chain.children[at]) {
      if (seen.size() <= kMostDependents && seen.insert(child).second) pending.push_back(child);
    }
  }
  return seen.size() - 1;
}

std::vector<size_t> OrderOfAttention(const TriageResult& result) {
  const size_t files = result.files.size();
  // The smallest first: what counts most comes first, and more of it is less.
  using Key =
      std::tuple<Attention, int, size_t, size_t, size_t, size_t, uint64_t, uint64_t, uint64_t>;
  std::vector<Key> keys;
  keys.reserve(files);
  for (size_t i = 0; i < files; ++i) {
    const ImageFacts& facts = result.files[i].facts;
    const CheckFacts& check = facts.check;
    keys.emplace_back(AttentionFor(result, i), LooksEncrypted(facts) ? 0 : 1,
                      SIZE_MAX - ReasonsOf(result, i, Weight::kUnsafe).size(),
                      SIZE_MAX - ReasonsOf(result, i, Weight::kDoubt).size(),
                      SIZE_MAX - DependentsOf(result, i),
                      SIZE_MAX - KindsOf(check, Severity::kCorruption).size(),
                      UINT64_MAX - check.Units(Severity::kCorruption),
                      UINT64_MAX - check.Units(Severity::kLeak), UINT64_MAX - facts.remnants.bytes);
  }
  std::vector<size_t> order(files);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) -> const Key& { return keys[i]; });
  return order;
}

std::string WhyLookAt(const TriageResult& result, size_t index) {
  const ImageFacts& facts = result.files[index].facts;
  const CheckFacts& check = facts.check;
  Why why;
  if (facts.entropy.plan_repeats > 0) {
    why.Add("looks encrypted by a plan");
  } else if (LooksEncrypted(facts)) {
    why.Add("begins with what looks encrypted");
  }
  why.Add(Some(ReasonsOf(result, index, Weight::kUnsafe)));
  why.Add(Some(ReasonsOf(result, index, Weight::kDoubt)));
  if (!check.trouble.empty()) why.Add("not checked");
  why.AddDamage(check, Severity::kCorruption, "corruption", "corruptions");
  for (size_t e : result.chain.edges_of[index]) {
    const ChainEdge& edge = result.chain.edges[e];
    if (edge.state != LinkState::kFound) {
      why.Add(fmt::format("{} {}", edge.kind, ToText(edge.state)));
    }
    for (LinkTrouble trouble : edge.troubles) {
      why.Add(fmt::format("{} {}", edge.kind, ToText(trouble)));
    }
  }
  why.AddDamage(check, Severity::kLeak, "leak", "leaks");
  for (const RuleFacts& rule : facts.rules) {
    if (HitFrom(rule, result.fail_on)) why.Add("rule " + Printable(rule.rule));
  }
  // No reason by itself: it says what is at stake.
  const size_t dependents = DependentsOf(result, index);
  if (AttentionFor(result, index) < Attention::kSound && dependents > 0) {
    const std::string_view more = dependents >= kMostDependents ? " or more" : "";
    why.Add(fmt::format("{}{} upon it", Plural(dependents, "image", "images"), more));
  }
  return why.Take();
}

int ExitCodeOf(const TriageResult& result) {
  int code = result.errors.empty() ? 0 : 8;
  for (size_t i = 0; i < result.files.size(); ++i) {
    if (result.files[i].facts.identity.kind == FileKind::kUnreadable) code |= 8;
    if (AttentionFor(result, i) < Attention::kSound) code |= 4;
  }
  return code;
}

}  // namespace imgfsck
