// SPDX-License-Identifier: Apache-2.0
// The second, targeted pass: for clusters that the walk found claimed twice, who claims them. Runs
// only when there are such clusters, and keeps only claims on them.
#pragma once

#include <vector>

#include "analyzers/qcow2/claims.h"
#include "analyzers/qcow2/columns.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {

struct Claim {
  enum class Kind : uint8_t { kMeta, kData, kSpan };
  uint64_t cluster = 0;
  Kind kind = Kind::kMeta;
  MetaKind meta{};  // of kMeta
  uint64_t meta_index = 0, meta_owner = 0;
  TableRef table;           // of kData and kSpan (and of an L2 table itself: kMeta, kL2)
  uint64_t index = 0;       // entry in the table
  uint64_t descriptor = 0;  // the entry, as stored
  uint32_t layers = 0;      // number in ClaimList::layer_sets
};

struct ClaimList {
  std::vector<Claim> claims;  // by cluster, then metadata first, then by guest position
  std::vector<std::vector<uint32_t>> layer_sets;
  bool truncated = false;  // more claims than are kept
  const std::vector<uint32_t>& LayersOf(const Claim& claim) const {
    return layer_sets[claim.layers];
  }
  bool ShareLayer(const Claim& a, const Claim& b) const;
};

inline constexpr size_t kMaxClaims = 1 << 20;

// All claims on clusters for which wanted(cluster) holds.
Status CollectClaims(const Image& image, const Columns& columns,
                     const std::function<bool(uint64_t)>& wanted, ClaimList* list);

// Turns claims on conflicting clusters into findings (rows 21, 45, 54, 55, 66, 79, 80, 86, 102,
// 131, 134, 152 of the sheet).
void JudgeConflicts(const Image& image, const ClaimMap& claims, const ClaimList& list,
                    Findings* findings);

}  // namespace imgfsck::qcow2
