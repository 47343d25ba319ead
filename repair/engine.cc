// SPDX-License-Identifier: Apache-2.0
// The table of repairers, and the loop that makes a plan. A new format: its include, its line.
#include "repair/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "base/interrupt.h"
#include "io/sha256.h"
#include "repair/cow/repairer.h"
#include "repair/guest_compare.h"
#include "repair/judge.h"
#include "repair/qcow1/repairer.h"
#include "repair/qcow2/repairer.h"
#include "repair/read_watch.h"
#include "repair/vhd/repairer.h"

namespace imgfsck {
namespace {

constexpr std::array kRepairers = {
    &kQcow2Repairer,
    &kQcow1Repairer,
    &kVhdRepairer,
    &kCowRepairer,
};

constexpr std::string_view kUnreadable =
    "some of its metadata cannot be read, so nobody can tell which clusters are free; copy the "
    "image "
    "to a sound medium with ddrescue, as often as it takes to read these places, and repair the "
    "copy";
constexpr int kMostRounds = 8;  // over all passes; each brings to light what the last one mended

// A source that can change what it stands for, the bytes staying the same: a report made on a
// pass's overlay stays valid when that overlay is merged into the plan's.
class Stand : public ByteSource {
 public:
  explicit Stand(const ByteSource& target) : target_(&target) {}
  void Point(const ByteSource& target) { target_ = &target; }
  uint64_t Size() const override { return target_->Size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
    return target_->ReadAt(offset, buffer);
  }
  Result<HostExtent> ExtentAt(uint64_t offset) const override { return target_->ExtentAt(offset); }
  void Prefetch(uint64_t offset, uint64_t length) const override {
    target_->Prefetch(offset, length);
  }

 private:
  const ByteSource* target_;
};

struct EngineState {
  std::unique_ptr<Stand> bytes;
  CheckReport report;
};

// Errors that end the whole plan; any other drops only the pass.
bool IsFatal(const Error& error) {
  return error.code == ErrorCode::kInterrupted || error.code == ErrorCode::kOutOfMemory;
}

void SortAndMerge(std::vector<LayerRange>* ranges) {
  std::sort(ranges->begin(), ranges->end());
  std::vector<LayerRange> merged;
  for (const LayerRange& range : *ranges) {
    if (range.guest.length == 0) continue;
    if (merged.empty() || merged.back().layer != range.layer ||
        merged.back().guest.end() < range.guest.offset.value) {
      merged.push_back(range);
    } else {
      const uint64_t end = std::max(merged.back().guest.end(), range.guest.end());
      merged.back().guest.length = end - merged.back().guest.offset.value;
    }
  }
  *ranges = std::move(merged);
}

// Names what `changed` has beyond `declared`; nothing when all of it was declared.
std::optional<std::string> Undeclared(const std::vector<LayerRange>& changed,
                                      const std::vector<LayerRange>& declared) {
  std::map<std::string, RangeSet> allowed;
  for (const LayerRange& range : declared) {
    allowed[range.layer].Add(range.guest.offset.value, range.guest.length);
  }
  for (const LayerRange& range : changed) {
    if (allowed[range.layer].Covers(range.guest.offset.value, range.guest.length)) continue;
    return fmt::format("{} guest bytes at {:#x} of {} would read differently", range.guest.length,
                       range.guest.offset.value,
                       range.layer == kActiveLayer ? "the disk" : "snapshot " + range.layer);
  }
  return std::nullopt;
}

// Host bytes that differ from the base's, and those that are cut off.
Result<RangeSet> PatchedRanges(const Overlay& overlay) {
  RangeSet patched;
  IMG_RETURN_IF_ERROR(overlay.ForEachPatch([&](uint64_t offset, Bytes, Bytes bytes) {
    patched.Add(offset, bytes.size());
    return CheckStop();
  }));
  const uint64_t old_size = overlay.base().Size(), new_size = overlay.Size();
  if (new_size < old_size) patched.Add(new_size, old_size - new_size);
  return patched;
}

class Planner {
 public:
  Planner(const ByteSource& source, const RepairKit& kit, const RepairOptions& options,
          const std::set<std::string_view>& banned)
      : source_(source), kit_(kit), options_(options), banned_(banned) {}

  // False: the plan has to be made again without one more pass, which `banned` now names.
  Result<bool> Make(CheckReport before, Plan* plan, std::set<std::string_view>* banned) {
    plan_ = plan;
    plan_->overlay = std::make_unique<Overlay>(source_);
    plan_->before = std::move(before);
    state_ = nullptr;
    for (int round = 0; round < kMostRounds; ++round) {
      const uint64_t version = version_;
      for (const Pass& pass : kit_.repairer->passes) IMG_RETURN_IF_ERROR(Try(pass));
      if (version_ == version) break;
    }
    IMG_RETURN_IF_ERROR(Conclude());
    return JudgeWhole(banned);
  }

 private:
  const CheckReport& current() const { return state_ ? state_->report : plan_->before; }
  const ByteSource& current_bytes() const {
    return state_ ? static_cast<const ByteSource&>(*state_->bytes) : source_;
  }

  void Drop(const Pass& pass, PassOutcome outcome, std::string reason) {
    dropped_.insert(pass.name);
    std::erase_if(plan_->passes, [&](const PassRun& run) {
      return run.dropped && run.name == pass.name && run.reason == reason;
    });
    plan_->passes.push_back(
        {std::string(pass.name), std::string(pass.sentence), std::move(outcome), true, reason});
  }

  Status Try(const Pass& pass) {
    IMG_RETURN_IF_ERROR(CheckStop());
    auto tried = tried_.find(pass.name);
    if (banned_.contains(pass.name) || (tried != tried_.end() && tried->second == version_) ||
        !pass.wanted(current(), options_)) {
      return Ok();
    }
    tried_[pass.name] = version_;
    dropped_.erase(pass.name);
    for (std::string_view needed : pass.needs) {
      if (!dropped_.contains(needed) && !banned_.contains(needed)) continue;
      Drop(pass, {}, fmt::format("it needs the pass \"{}\", which was not kept", needed));
      return Ok();
    }
    Overlay trial(static_cast<const ByteSource&>(*plan_->overlay));
    auto outcome = pass.run({trial, current(), options_, &plan_->before});
    if (!outcome) {
      if (IsFatal(outcome.error())) return Error(outcome.error());
      Drop(pass, {}, outcome.error().message);
      return Ok();
    }
    return Weigh(pass, std::move(*outcome), trial);
  }

  // Keeps what the pass did, or drops it.
  Status Weigh(const Pass& pass, PassOutcome outcome, Overlay& trial) {
    IMG_ASSIGN_OR_RETURN(const RangeSet patched, PatchedRanges(trial));
    if (patched.Empty() && trial.Size() == plan_->overlay->Size()) {
      if (!outcome.notes.empty() || !outcome.pieces.empty()) KeepNotes(pass, std::move(outcome));
      return Ok();
    }
    auto next = std::make_unique<EngineState>();
    next->bytes = std::make_unique<Stand>(trial);
    IMG_ASSIGN_OR_RETURN(next->report, kit_.check(*next->bytes));
    IMG_ASSIGN_OR_RETURN(const auto reason, Objection(pass, outcome, *next, trial, patched));
    if (reason) {
      Drop(pass, std::move(outcome), *reason);
      return Ok();
    }
    IMG_RETURN_IF_ERROR(plan_->overlay->Absorb(trial));
    next->bytes->Point(*plan_->overlay);
    state_ = std::move(next);
    ++version_;
    Keep(pass, std::move(outcome));
    return Ok();
  }

  // Why the pass must not be kept; nothing when it may.
  Result<std::optional<std::string>> Objection(const Pass& pass, const PassOutcome& outcome,
                                               const EngineState& next, const Overlay& trial,
                                               const RangeSet& patched) {
    const std::set<Problem> tolerated(pass.may_add.begin(), pass.may_add.end());
    const auto problems = NewProblems(current(), next.report, patched, tolerated);
    if (!problems.empty()) {
      return std::optional("it would bring a new problem: " + problems.front().sentence);
    }
    auto changed =
        outcome.whole_disks ? Result<std::vector<LayerRange>>(outcome.changed)
        : kit_.repairer->guest_changes != nullptr
            ? kit_.repairer->guest_changes(current(), current_bytes(), next.report, trial)
            : CompareGuests({current(), current_bytes()}, {next.report, trial}, patched,
                            options_.check);
    if (!changed) return Error(changed.error());
    if (auto text = Undeclared(*changed, outcome.changed)) {
      return std::optional(*text + ", which it did not announce");
    }
    const bool may_change = options_.mode == RepairMode::kAll || !options_.also_fix.empty() ||
                            !options_.relink_parent.empty();
    if (!changed->empty() && !may_change) {
      return std::optional(*Undeclared(*changed, {}) + ", which only --repair=all may do");
    }
    plan_->changed.insert(plan_->changed.end(), changed->begin(), changed->end());
    return std::optional<std::string>();
  }

  void Keep(const Pass& pass, PassOutcome outcome) {
    plan_->passes.push_back(
        {std::string(pass.name), std::string(pass.sentence), std::move(outcome), false, {}});
  }
  // A pass that changed nothing, but has something to say: its last word counts.
  void KeepNotes(const Pass& pass, PassOutcome outcome) {
    std::erase_if(plan_->passes, [&](const PassRun& run) {
      return !run.dropped && run.name == pass.name && run.outcome.changes == 0;
    });
    outcome.changes = 0;
    Keep(pass, std::move(outcome));
  }

  void AddUp() {
    for (const PassRun& run : plan_->passes) {
      if (run.dropped) continue;
      const PassOutcome& outcome = run.outcome;
      plan_->lost.insert(plan_->lost.end(), outcome.lost.begin(), outcome.lost.end());
      plan_->settled.insert(plan_->settled.end(), outcome.settled.begin(), outcome.settled.end());
      plan_->pieces.insert(plan_->pieces.end(), outcome.pieces.begin(), outcome.pieces.end());
      OrphanReport& orphans = plan_->orphans;
      orphans.kept += outcome.orphans.kept;
      orphans.relinked += outcome.orphans.relinked;
      orphans.freed += outcome.orphans.freed;
      if (!outcome.orphans.where.empty()) orphans.where = outcome.orphans.where;
    }
    SortAndMerge(&plan_->changed);
    SortAndMerge(&plan_->lost);
    SortAndMerge(&plan_->settled);
  }

  Status Conclude() {
    AddUp();
    IMG_RETURN_IF_ERROR(
        MeasurePatches(*plan_->overlay, &plan_->patches, &plan_->bytes, &plan_->patch_hash));
    if (plan_->Empty()) return Ok();
    // The last word: the check of exactly the bytes that will be written.
    IMG_ASSIGN_OR_RETURN(plan_->after, kit_.check(*plan_->overlay));
    return Ok();
  }

  // Problems that were there before, and that passes which were kept brought to light.
  std::set<Problem> Revealed() const {
    std::set<Problem> revealed;
    for (const Pass& pass : kit_.repairer->passes) {
      const bool kept = std::any_of(plan_->passes.begin(), plan_->passes.end(), [&](auto& run) {
        return !run.dropped && run.name == pass.name && run.outcome.changes > 0;
      });
      if (kept && pass.reveals) revealed.insert(pass.may_add.begin(), pass.may_add.end());
    }
    return revealed;
  }

  // A pass may leave work to later ones. When that work was not done, the pass has to go.
  Result<bool> JudgeWhole(std::set<std::string_view>* banned) {
    if (plan_->Empty()) return true;
    IMG_ASSIGN_OR_RETURN(const RangeSet patched, PatchedRanges(*plan_->overlay));
    for (const NewProblem& problem :
         NewProblems(plan_->before, plan_->after, patched, Revealed())) {
      for (const Pass& pass : kit_.repairer->passes) {
        const bool kept = std::any_of(plan_->passes.begin(), plan_->passes.end(), [&](auto& run) {
          return !run.dropped && run.name == pass.name && run.outcome.changes > 0;
        });
        const bool announced = std::find(pass.may_add.begin(), pass.may_add.end(),
                                         problem.problem) != pass.may_add.end();
        if (!kept || !announced || banned->contains(pass.name)) continue;
        banned->insert(pass.name);
        return false;
      }
    }
    return true;
  }

  const ByteSource& source_;
  const RepairKit& kit_;
  const RepairOptions& options_;
  const std::set<std::string_view>& banned_;
  Plan* plan_ = nullptr;
  std::unique_ptr<EngineState> state_;          // null: as the source is
  uint64_t version_ = 0;                        // passes kept so far
  std::map<std::string_view, uint64_t> tried_;  // the version a pass last saw
  std::set<std::string_view> dropped_;
};

}  // namespace

const Repairer* FindRepairer(std::string_view format) {
  for (const Repairer* repairer : kRepairers) {
    if (repairer->format == format) return repairer;
  }
  return nullptr;
}

Status MeasurePatches(const Overlay& overlay, uint64_t* patches, uint64_t* bytes,
                      std::string* hash) {
  *patches = *bytes = 0;
  Sha256 sum;
  sum.AddNumber(overlay.base().Size());
  sum.AddNumber(overlay.Size());
  IMG_RETURN_IF_ERROR(
      overlay.ForEachPatch([&](uint64_t offset, Bytes old_bytes, Bytes new_bytes) -> Status {
        ++*patches;
        *bytes += new_bytes.size();
        sum.AddNumber(offset);
        sum.AddNumber(old_bytes.size());
        sum.Add(old_bytes);
        sum.AddNumber(new_bytes.size());
        sum.Add(new_bytes);
        return CheckStop();
      }));
  *hash = sum.HexDigest();
  return Ok();
}

namespace {

Result<Plan> PlanFor(const ByteSource& source, const RepairKit& kit, const RepairOptions& options) {
  std::set<std::string_view> banned;
  for (;;) {  // ends: every time round one more pass is left out
    IMG_ASSIGN_OR_RETURN(CheckReport before, kit.check(source));
    Plan plan;
    if (kit.repairer->needs_all_metadata && before.findings.Has(Problem::kImageUnreadable)) {
      plan.overlay = std::make_unique<Overlay>(source);
      plan.before = std::move(before);
      plan.passes.push_back({"all", "repair this image", {}, true, std::string(kUnreadable)});
      return plan;
    }
    Planner planner(source, kit, options, banned);
    IMG_ASSIGN_OR_RETURN(const bool good, planner.Make(std::move(before), &plan, &banned));
    if (!good) continue;
    for (const Pass& pass : kit.repairer->passes) {
      if (!banned.contains(pass.name)) continue;
      plan.passes.push_back({std::string(pass.name),
                             std::string(pass.sentence),
                             {},
                             true,
                             "what it leaves to other passes could not be finished"});
    }
    return plan;
  }
}

}  // namespace

Result<Plan> MakePlan(const ByteSource& source, const RepairKit& kit,
                      const RepairOptions& options) {
  auto watch = std::make_unique<ReadWatch>(source);
  IMG_ASSIGN_OR_RETURN(Plan plan, PlanFor(*watch, kit, options));
  IMG_RETURN_IF_ERROR(watch->Confirm());
  plan.source = std::move(watch);
  return plan;
}

RepairKit KitFor(const Format& format, const CheckOptions& options) {
  return {FindRepairer(format.name),
          [&](const ByteSource& bytes) { return CheckImage(bytes, format, options); }};
}

Result<Plan> MakePlan(const ByteSource& source, const Format& format,
                      const RepairOptions& options) {
  const RepairKit kit = KitFor(format, options.check);
  if (kit.repairer == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("repairing {} images is not available in this version", format.name),
                 {}};
  }
  return MakePlan(source, kit, options);
}

}  // namespace imgfsck
