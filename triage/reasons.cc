// SPDX-License-Identifier: Apache-2.0
#include "triage/reasons.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "base/result.h"

namespace imgfsck {
namespace {

using enum Weight;

constexpr ReasonInfo kReasons[] = {
#define X(enumerator, code, openstack, kubevirt, strict, what, answers) \
  {ReasonCode::enumerator, code, {openstack, kubevirt, strict}, what, answers},
#include "triage/reasons.def"
#undef X
};
static_assert(std::size(kReasons) == static_cast<size_t>(ReasonCode::kEnd));

constexpr std::array<std::string_view, 3> kPolicies = {"openstack", "kubevirt", "strict"};

std::string_view ToText(Weight weight) {
  return weight == kNote ? "note" : weight == kDoubt ? "undecidable" : "unsafe";
}

}  // namespace

std::optional<Policy> ParsePolicy(std::string_view name) {
  const auto found = std::ranges::find(kPolicies, name);
  if (found == kPolicies.end()) return std::nullopt;
  return static_cast<Policy>(found - kPolicies.begin());
}

std::string_view ToText(Policy policy) { return kPolicies[static_cast<size_t>(policy)]; }

std::string_view ToText(Verdict verdict) {
  return verdict == Verdict::kSafe     ? "safe"
         : verdict == Verdict::kUnsafe ? "unsafe"
                                       : "undecidable";
}

std::span<const ReasonInfo> AllReasons() { return kReasons; }

const ReasonInfo& InfoOf(ReasonCode code) {
  IMG_CHECK(code < ReasonCode::kEnd);
  return kReasons[static_cast<size_t>(code)];
}

void SortReasons(std::vector<Reason>* reasons) {
  auto key = [](const Reason& r) { return std::tie(r.code, r.offset, r.length, r.detail); };
  std::ranges::sort(*reasons, [&](const Reason& a, const Reason& b) { return key(a) < key(b); });
  auto same = [&](const Reason& a, const Reason& b) { return key(a) == key(b); };
  reasons->erase(std::unique(reasons->begin(), reasons->end(), same), reasons->end());
}

Weight WeightOf(ReasonCode code, Policy policy) {
  return InfoOf(code).weights[static_cast<size_t>(policy)];
}

Verdict Judge(const std::vector<Reason>& reasons, Policy policy) {
  Weight worst = kNote;
  for (const Reason& reason : reasons) worst = std::max(worst, WeightOf(reason.code, policy));
  return worst == kUnsafe  ? Verdict::kUnsafe
         : worst == kDoubt ? Verdict::kUndecidable
                           : Verdict::kSafe;
}

std::string ReasonsMarkdown() {
  std::string text =
      "| code | what it says | openstack | kubevirt | strict | answers |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  for (const ReasonInfo& info : kReasons) {
    text += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", info.name, info.what,
                        ToText(info.weights[0]), ToText(info.weights[1]), ToText(info.weights[2]),
                        info.answers);
  }
  return text;
}

}  // namespace imgfsck
