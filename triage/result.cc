// SPDX-License-Identifier: Apache-2.0
#include "triage/result.h"

#include <algorithm>
#include <numeric>

namespace imgfsck {

void Conclude(TriageResult* result) {
  std::vector<ChainMember> members;
  for (const TriagedFile& file : result->files) members.push_back({&file.file, &file.facts});
  result->chain = LinkChains(members);
  for (const ChainEdge& edge : result->chain.edges) {
    if (std::ranges::count(edge.troubles, LinkTrouble::kCycle) == 0) continue;
    std::vector<Reason>& reasons = result->files[edge.child].facts.reasons;
    reasons.push_back({ReasonCode::kChainCycle, 0, 0, {}, edge.names.front()});
    SortReasons(&reasons);
  }
  for (TriagedFile& file : result->files) file.verdict = Judge(file.facts.reasons, result->policy);
}

namespace {

// A chain that cannot be read as it was meant is damage of the image that needs it.
bool IsBroken(const ChainEdge& edge) {
  if (edge.state != LinkState::kFound) return true;
  return std::ranges::any_of(edge.troubles, [](LinkTrouble trouble) {
    return trouble != LinkTrouble::kMoved && trouble != LinkTrouble::kShorter;
  });
}

}  // namespace

Attention AttentionFor(const TriageResult& result, size_t index) {
  const TriagedFile& file = result.files[index];
  const bool examined = file.is_image() || file.facts.identity.kind == FileKind::kUnknown;
  if (!examined) return Attention::kNotAnImage;
  if (file.verdict == Verdict::kUnsafe) return Attention::kUnsafe;
  if (file.verdict == Verdict::kUndecidable) return Attention::kUndecidable;
  const CheckFacts& check = file.facts.check;
  if (check.AnyFrom(result.fail_on) || !check.trouble.empty()) return Attention::kDamaged;
  for (size_t e : result.chain.edges_of[index]) {
    if (IsBroken(result.chain.edges[e])) return Attention::kDamaged;
  }
  return Attention::kSound;
}

std::vector<size_t> OrderOfAttention(const TriageResult& result) {
  std::vector<size_t> order(result.files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return AttentionFor(result, i); });
  return order;
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
