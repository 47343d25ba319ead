// SPDX-License-Identifier: Apache-2.0
// What a check of a qcow2 image leaves for the repair passes and for SQL: CheckReport::detail.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "analyzers/check.h"
#include "analyzers/qcow2/columns.h"
#include "analyzers/qcow2/l2_walk.h"
#include "analyzers/qcow2/recover/recover.h"
#include "analyzers/qcow2/refcounts.h"

namespace imgfsck::qcow2 {

// A compressed entry, in one distinct table.
struct StreamRef {
  TableRef table;
  uint64_t index = 0, descriptor = 0;
};

struct CheckState {
  std::shared_ptr<Image> image;
  std::shared_ptr<const Recovery> recovery;  // a better header; null: the stored one, or none known
  // The stored header cannot be used: *image is the file with the recovered one, and nothing but
  // the header may be repaired before that is written.
  bool reconstructed = false;
  std::optional<Columns> columns;  // refers to *image
  WalkResult walk;
  bool walked = false;           // the L2 tables were walked
  bool counts_compared = false;  // the stored counts could be read
  std::vector<CountRun> leaks;   // stored above computed; at most kMaxLeakRuns
  bool leaks_complete = true;
  uint64_t highest_cluster = 0;     // last one used or counted, plus 1
  std::vector<StreamRef> overlaps;  // streams that lie on another one
  // Of a deep check: streams that do not decode, and those whose entry has a wrong number of
  // sectors; the descriptor is then the right one. At most StreamPlaces::kMost each.
  std::vector<StreamRef> undecodable, misfits;

  const ClaimMap& claims() const { return walk.claims; }
};
inline constexpr size_t kMaxLeakRuns = 1 << 20;

inline const CheckState& StateOf(const CheckReport& report) {
  return *static_cast<const CheckState*>(report.detail.get());
}

// The count that the image stores for a cluster; 0 where no block covers it.
uint64_t StoredCount(const Image& image, uint64_t cluster);

// Rows 98, 99 and 150: leaked clusters that are no waste but data that damage hides.
void JudgeHidden(const CheckState& state, Findings* findings);

// Adds to findings about tables that layers share the other layers, as further claimants.
void NameSharingLayers(const CheckState& state, Findings* findings);

// Rows 62 to 65 and 151, which read payload: --deep.
Status JudgeDeep(CheckState* state, const CheckOptions& options, Findings* findings);

}  // namespace imgfsck::qcow2
