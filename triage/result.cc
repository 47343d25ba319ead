// SPDX-License-Identifier: Apache-2.0
#include "triage/result.h"

#include <algorithm>

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

}  // namespace imgfsck
