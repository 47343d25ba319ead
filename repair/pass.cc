// SPDX-License-Identifier: Apache-2.0
#include "repair/pass.h"

#include <algorithm>

namespace imgfsck {
namespace {

bool AllowedAs(Severity severity, RepairClass repair, RepairMode mode) {
  if (repair == RepairClass::kNone || severity == Severity::kInfo) return false;
  switch (mode) {
    case RepairMode::kLeaks:
      return severity == Severity::kLeak && repair == RepairClass::kSafe;
    case RepairMode::kSafe:
      return repair == RepairClass::kSafe;
    case RepairMode::kAll:
      return repair == RepairClass::kSafe || severity != Severity::kWarning;
  }
  return false;
}

}  // namespace

std::string_view ToText(RepairMode mode) {
  switch (mode) {
    case RepairMode::kLeaks:
      return "leaks";
    case RepairMode::kSafe:
      return "safe";
    case RepairMode::kAll:
      return "all";
  }
  return "";
}

bool Allowed(Problem problem, const RepairOptions& options) {
  const ProblemInfo& info = InfoOf(problem);
  return options.also_fix.contains(problem) || AllowedAs(info.severity, info.repair, options.mode);
}

bool Allowed(const Finding& finding, const RepairOptions& options) {
  return options.also_fix.contains(finding.problem) ||
         AllowedAs(finding.severity_or_default(), finding.repair_or_default(), options.mode);
}

bool WantedAny(const CheckReport& report, const RepairOptions& options,
               std::initializer_list<Problem> problems) {
  const auto& totals = report.findings.totals();
  auto is_asked = [&](Problem problem) {
    return std::find(problems.begin(), problems.end(), problem) != problems.end();
  };
  for (Problem problem : problems) {
    auto total = totals.find(problem);
    if (total == totals.end()) continue;
    // Findings that were not kept are judged by what the registry says of their kind.
    if (total->second.dropped > 0 && Allowed(problem, options)) return true;
  }
  const auto& kept = report.findings.kept();
  return std::any_of(kept.begin(), kept.end(), [&](const Finding& finding) {
    return is_asked(finding.problem) && Allowed(finding, options);
  });
}

bool Mends(const PassContext& context, Problem problem) {
  return context.report.findings.Has(problem) && Allowed(problem, context.options);
}

}  // namespace imgfsck
