// SPDX-License-Identifier: Apache-2.0
#include "triage/result.h"

#include <algorithm>
#include <numeric>

namespace imgfsck {

Attention AttentionFor(const TriagedFile& file, Severity fail_on) {
  const bool examined = file.is_image() || file.facts.identity.kind == FileKind::kUnknown;
  if (!examined) return Attention::kNotAnImage;
  if (file.verdict == Verdict::kUnsafe) return Attention::kUnsafe;
  if (file.verdict == Verdict::kUndecidable) return Attention::kUndecidable;
  const CheckFacts& check = file.facts.check;
  if (check.AnyFrom(fail_on) || !check.trouble.empty()) return Attention::kDamaged;
  return Attention::kSound;
}

std::vector<size_t> OrderOfAttention(const TriageResult& result) {
  std::vector<size_t> order(result.files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {},
                           [&](size_t i) { return AttentionFor(result.files[i], result.fail_on); });
  return order;
}

int ExitCodeOf(const TriageResult& result) {
  int code = result.errors.empty() ? 0 : 8;
  for (const TriagedFile& file : result.files) {
    if (file.facts.identity.kind == FileKind::kUnreadable) code |= 8;
    if (AttentionFor(file, result.fail_on) < Attention::kSound) code |= 4;
  }
  return code;
}

}  // namespace imgfsck
