// SPDX-License-Identifier: Apache-2.0
// A repair pass: one kind of mending, declared in an order. A pass reads and writes an overlay
// only; dry run, undo, crash safety and --output are layers below it, never an `if` in it. The
// engine (engine.h) checks the overlay again after every pass and drops a pass that adds a problem
// or changes a guest byte that it did not declare.
#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "analyzers/check.h"
#include "io/overlay.h"

namespace imgfsck {

enum class RepairMode { kLeaks, kSafe, kAll };
enum class OrphanPolicy { kDefault, kKeep, kSnapshot, kDirectory, kFree };

struct RepairOptions {
  RepairMode mode = RepairMode::kSafe;
  std::set<Problem> also_fix;  // --fix CODE
  OrphanPolicy orphans = OrphanPolicy::kDefault;
  std::string orphan_directory;       // for kDirectory
  uint64_t max_copy = kGiB;           // bytes a split may copy
  const ByteSource* donor = nullptr;  // --donor
  std::string relink_parent;          // --relink
  CheckOptions check;                 // how to check again
};

// Guest bytes of one layer.
struct LayerRange {
  std::string layer;
  GuestRange guest;
  friend auto operator<=>(const LayerRange&, const LayerRange&) = default;
};

struct OrphanReport {
  uint64_t kept = 0, relinked = 0, freed = 0;  // units of allocation
  std::string where;                           // snapshot name or directory, when made reachable
};

std::string_view ToText(RepairMode mode);  // "leaks", "safe", "all"

// Bytes of the image as it was that nothing refers to; --orphans dir:PATH makes them files.
struct OrphanPiece {
  HostRange host;
  std::optional<GuestRange> guest;  // where they belong, when that is known
  std::string origin;               // "leaked cluster", "lost l2 table" …
};

// What a pass did to the overlay it was given.
struct PassOutcome {
  uint64_t changes = 0;             // structures changed; 0: nothing to do
  std::vector<LayerRange> changed;  // guest bytes that now read differently (declared)
  bool whole_disks = false;         // `changed` names whole disks: nobody needs to compare them
  std::vector<LayerRange> lost;     // of those, bytes that are gone
  OrphanReport orphans;
  std::vector<std::string> particulars;  // sentences for the report: what was done, in detail
  std::vector<std::string> notes;        // sentences for the report: what was not done and why
  std::vector<OrphanPiece> pieces;       // with OrphanPolicy::kDirectory only
  // Guest bytes that damage touched and that are right again, or still.
  std::vector<LayerRange> settled = {};
};

struct PassContext {
  Overlay& image;             // read and write here
  const CheckReport& report;  // of exactly these bytes
  const RepairOptions& options;
  const CheckReport* first = nullptr;  // of the image as it was; null: the same as `report`
};

struct Pass {
  std::string_view name;      // "refcounts"
  int order;                  // ascending; the sheet's repair order
  std::string_view sentence;  // what it does, in words
  bool (*wanted)(const CheckReport& report, const RepairOptions& options);
  Result<PassOutcome> (*run)(const PassContext& context);
  // Passes that must not have been dropped: without them this one is left out too.
  std::span<const std::string_view> needs = {};
  // Problems that this pass may bring because a later one mends them (counts of new clusters, say).
  // Should they be left in the end, the plan is made again without this pass.
  std::span<const Problem> may_add = {};
  // What may_add names was there before, and nobody could see it: it may be left in the end.
  bool reveals = false;
};

// True when `options` allow mending this problem: by mode, the registry's class and the severity
// (infos never, warnings only safe ones; leaks mode: only leaks), or by --fix.
bool Allowed(Problem problem, const RepairOptions& options);
bool Allowed(const Finding& finding, const RepairOptions& options);  // by its own judgement
bool WantedAny(const CheckReport& report, const RepairOptions& options,
               std::initializer_list<Problem> problems);
// Found, and allowed.
bool Mends(const PassContext& context, Problem problem);

// A format's repairs, repair/<format>/. Listed in engine.cc.
struct Repairer {
  std::string_view format;
  std::span<const Pass> passes;  // in ascending order
  // Guest ranges that could be read before and read differently after. Null: the engine compares
  // the mappings and the stored bytes itself (guest_compare.h).
  Result<std::vector<LayerRange>> (*guest_changes)(const CheckReport& before,
                                                   const ByteSource& before_bytes,
                                                   const CheckReport& after,
                                                   const Overlay& after_bytes);
  // What is free, shared or lost follows from all references together: no pass may run as long as
  // some of them cannot be read.
  bool needs_all_metadata = false;
};

}  // namespace imgfsck
