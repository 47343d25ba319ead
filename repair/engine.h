// SPDX-License-Identifier: Apache-2.0
// Makes the plan of a repair: runs the passes, in order and again until nothing changes any more,
// each in an overlay of its own above the plan's; checks that overlay; keeps the pass, or drops it
// because it added a problem or changed a guest byte that it did not declare (decisions, "Accepting
// a plan"). The image itself is only read. What becomes of a plan is for transaction.h, output.h
// and plan_file.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "repair/pass.h"

namespace imgfsck {

// One run of one pass that did something, or failed to.
struct PassRun {
  std::string name, sentence;
  PassOutcome outcome;
  bool dropped = false;
  std::string reason;  // why it was dropped
};

struct Plan {
  std::unique_ptr<const ByteSource> source;  // what the overlay and the reports read through
  std::unique_ptr<Overlay> overlay;          // over the source that the plan was made for
  CheckReport before;                        // of the source
  CheckReport after;                // of the overlay; not filled in when there is nothing to do
  std::vector<PassRun> passes;      // in the order in which they ran
  std::vector<LayerRange> changed;  // guest bytes that read differently, ascending and merged
  std::vector<LayerRange> lost;     // of those, bytes that are gone
  std::vector<LayerRange> settled;  // bytes that damage touched and that are right
  OrphanReport orphans;
  std::vector<OrphanPiece> pieces;
  uint64_t patches = 0;    // 0 and no new length: nothing to do
  uint64_t bytes = 0;      // that differ
  std::string patch_hash;  // over offsets, old and new bytes of all patches, and lengths

  const CheckReport& Final() const { return Empty() ? before : after; }
  bool Empty() const { return patches == 0 && overlay->Size() == overlay->base().Size(); }
};

// How a format is checked and mended; for tests also formats that no table lists.
struct RepairKit {
  const Repairer* repairer = nullptr;
  std::function<Result<CheckReport>(const ByteSource& source)> check;
};

const Repairer* FindRepairer(std::string_view format);  // null when there is none
// From the tables; without a repairer where there is none. The kit refers to both.
RepairKit KitFor(const Format& format, const CheckOptions& options);

// `source` and what `options` refers to must outlive the plan. kUnsupported for a format that has
// no repairs; kIo when a read failed that succeeds when it is tried again.
Result<Plan> MakePlan(const ByteSource& source, const Format& format, const RepairOptions& options);
Result<Plan> MakePlan(const ByteSource& source, const RepairKit& kit, const RepairOptions& options);

// The sums in `plan` over the patches of its overlay.
Status MeasurePatches(const Overlay& overlay, uint64_t* patches, uint64_t* bytes,
                      std::string* hash);

}  // namespace imgfsck
