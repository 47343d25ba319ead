// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/interrupt.h"
#include "io/lock.h"
#include "model/live_model.h"
#include "repair/engine.h"
#include "repair/transaction.h"
#include "report/json.h"
#include "report/text.h"
#include "tools/common/exit_codes.h"
#include "tools/common/image.h"

namespace imgfsck {
namespace {

std::string_view ModeName(RepairMode mode) {
  return mode == RepairMode::kLeaks ? "leaks" : mode == RepairMode::kSafe ? "safe" : "all";
}

class Runner {
 public:
  Runner(const std::string& path, const ImgfsckOptions& options, Progress& progress,
         DatabaseFile* database)
      : path_(path), options_(options), progress_(progress), database_(database) {
    result_.path = path;
  }

  int Run() {
    progress_.Start(path_);
    Status status = Dispatch();
    progress_.Clear();
    if (!status) result_.error = status.error();
    return Finish();
  }

 private:
  Status Dispatch() {
    if (!options_.rollback.empty()) return DoRollback();
    if (options_.recover) return DoRecover();
    IMG_RETURN_IF_ERROR(LookForInterrupted());
    IMG_ASSIGN_OR_RETURN(image_, OpenImage(path_, options_.format, options_.bad_map));
    if (options_.repair) return DoRepair();
    return DoCheck();
  }

  Status DoRollback() {
    IMG_ASSIGN_OR_RETURN(auto outcome, Rollback(path_, options_.rollback));
    message_ = outcome == RollbackOutcome::kRolledBack
                   ? "rolled back: the image is what it was before that repair"
                   : "nothing to roll back: the image is what it was before that repair";
    return Ok();
  }

  Status DoRecover() {
    IMG_ASSIGN_OR_RETURN(auto outcome, Recover(path_, options_.undo));
    message_ = outcome == RecoverOutcome::kFinished
                   ? "the interrupted repair is finished; its undo record can roll it back"
                   : "no interrupted repair: nothing to do";
    return Ok();
  }

  // A repair that a crash interrupted is finished before anything else; a plain check only says so.
  Status LookForInterrupted() {
    IMG_ASSIGN_OR_RETURN(auto record, InterruptedRepair(path_));
    if (!record) return Ok();
    bool writes = options_.repair && !options_.dry_run && options_.plan.empty() &&
                  options_.output.empty();
    if (!writes) {
      return Error{ErrorCode::kConflict,
                   fmt::format("a repair was interrupted here: `imgfsck --recover` finishes it "
                               "(undo record: {})",
                               *record),
                   {}};
    }
    IMG_ASSIGN_OR_RETURN(auto outcome, Recover(path_, ""));
    if (outcome == RecoverOutcome::kFinished) {
      result_.notes.push_back("an interrupted repair was finished first");
    }
    return Ok();
  }

  CheckOptions CheckSettings() {
    CheckOptions check = options_.repair_options.check;
    check.path = path_;
    check.progress = [this](std::string_view phase, uint64_t done, uint64_t total) {
      progress_.Update(phase, done, total);
    };
    return check;
  }

  void NoteUse() {
    if (!image_.in_use) return;
    result_.notes.push_back(
        "a running program writes to this image: what follows may be out of date already");
  }

  Status DoCheck() {
    NoteUse();
    IMG_ASSIGN_OR_RETURN(report_, CheckImage(image_.source(), *image_.format, CheckSettings()));
    AddCircumstances(&report_->findings);
    result_.before = ResultOf(*report_);
    return Ok();
  }

  void AddCircumstances(Findings* findings) {
    if (image_.in_use) {
      Finding f;
      f.problem = Problem::kImageInUse;
      findings->Add(std::move(f));
    }
    if (ChangedSince(image_)) {
      Finding f;
      f.problem = Problem::kImageChangedDuringCheck;
      findings->Add(std::move(f));
    }
  }

  Status DoRepair() {
    if (image_.in_use) {
      return Error{ErrorCode::kLocked,
                   "a running program writes to this image: it cannot be repaired now", {}};
    }
    RepairOptions settings = options_.repair_options;
    settings.check = CheckSettings();
    IMG_ASSIGN_OR_RETURN(plan_, MakePlan(image_.source(), *image_.format, settings));
    result_.before = ResultOf(plan_->before);
    if (!plan_->Empty()) result_.after = ResultOf(plan_->after);
    Summarise();
    RepairSummary& summary = *result_.repair;
    if (plan_->Empty()) return Ok();
    if (options_.dry_run) {
      summary.dry_run = true;
      return Ok();
    }
    CommitOptions commit;
    commit.undo_path = options_.undo;
    commit.keep_undo = !options_.no_undo;
    auto done = Commit(path_, *plan_->overlay, {image_.identity, plan_->patch_hash}, commit);
    if (!done) {
      result_.repair.reset();
      result_.after.reset();
      return Error(done.error());
    }
    summary.undo_file = done->undo_path;
    for (std::string& note : done->notes) result_.notes.push_back(std::move(note));
    return Ok();
  }

  void Summarise() {
    RepairSummary summary;
    summary.mode = ModeName(options_.repair_options.mode);
    summary.patches = plan_->patches;
    summary.bytes_written = plan_->bytes;
    summary.verified = true;
    for (const LayerRange& range : plan_->lost) summary.lost.push_back({range.layer, range.guest});
    summary.orphans = {plan_->orphans.kept, plan_->orphans.relinked, plan_->orphans.freed,
                       plan_->orphans.where};
    for (const PassRun& run : plan_->passes) {
      if (run.dropped) {
        summary.refused.push_back(fmt::format("{}: {}", run.sentence, run.reason));
      } else if (run.outcome.changes > 0) {
        summary.done.push_back(std::string(run.sentence));
      }
      if (!run.dropped) {
        for (const std::string& done : run.outcome.particulars) summary.done.push_back(done);
      }
      for (const std::string& note : run.outcome.notes) {
        if (std::ranges::find(summary.refused, note) == summary.refused.end()) {
          summary.refused.push_back(note);
        }
      }
    }
    result_.repair = std::move(summary);
  }

  // Guest ranges of the active disk that cannot be read as they were.
  Status WriteLostMap() {
    if (options_.lost_map.empty() || !result_.before) return Ok();
    std::vector<GuestRange> lost;
    uint64_t size = result_.before->virtual_size;
    auto add = [&](GuestRange range) {
      if (range.offset.value >= size) return;
      range.length = std::min(range.length, size - range.offset.value);
      lost.push_back(range);
    };
    for (const CheckResult* check : {&*result_.before}) {
      for (const Finding& f : check->findings->kept()) {
        Effect effect = f.effect_or_default();
        if (f.guest && f.layer == kActiveLayer && effect != Effect::kNone) add(*f.guest);
      }
    }
    if (result_.repair) {
      for (const LostRange& range : result_.repair->lost) {
        if (range.layer == kActiveLayer) add(range.guest);
      }
    }
    std::ofstream out(options_.lost_map, std::ios::trunc);
    out << FormatDdrescueMap(size, lost);
    out.flush();
    if (!out) return Error{ErrorCode::kIo, "cannot write " + options_.lost_map, {}};
    return Ok();
  }

  Status WriteDatabase() {
    if (database_ == nullptr || !result_.before) return Ok();
    const CheckReport& report = report_ ? *report_ : plan_->Final();
    ModelSource source;
    source.rows = report.rows.get();
    source.findings = [&]() -> Result<const Findings*> { return &report.findings; };
    source.refcounts =
        [&](const RowQuery& query) -> Result<std::unique_ptr<RowCursor<RefcountRow>>> {
      return report.refcounts ? report.refcounts(query) : nullptr;
    };
    static int64_t next_id = 1;
    source.image_id = next_id++;
    if (source.rows == nullptr) return Ok();
    return database_->Add(source);
  }

  int Finish() {
    if (!result_.error) {
      for (Status status : {WriteLostMap(), WriteDatabase()}) {
        if (!status && !result_.error) result_.error = status.error();
      }
    }
    bool acted = !options_.rollback.empty() || options_.recover;
    if (result_.error && result_.error->code == ErrorCode::kInterrupted) {
      PrintMessage("imgfsck", path_, "stopped; nothing half-written is left");
      return kExitStopped;
    }
    result_.exit_code = acted ? (result_.error ? kExitFailed : kExitClean)
                              : ExitCodeOf(result_, options_.fail_on, options_.exit_style);
    if (acted && !options_.json) {
      PrintMessage("imgfsck", path_, result_.error ? result_.error->message : message_);
      return result_.exit_code;
    }
    // What failed is for whoever runs the tool, also when results go to a file.
    if (result_.error) {
      PrintMessage("imgfsck", path_, result_.error->message);
      if (!options_.json && !result_.before) return result_.exit_code;
    }
    ReportOptions report;
    report.max_findings = options_.max_findings;
    report.verbosity = options_.verbosity;
    report.fail_on = options_.fail_on;
    report.colour = !options_.json && WantsColour(STDOUT_FILENO);
    TextWriter out(STDOUT_FILENO);
    if (options_.json) {
      WriteImageJson(result_, report, out);
    } else {
      WriteImageText(result_, report, out);
    }
    if (!out.Finish()) return kExitFailed;
    return result_.exit_code;
  }

  const std::string& path_;
  const ImgfsckOptions& options_;
  Progress& progress_;
  DatabaseFile* database_;
  OpenedImage image_;
  std::optional<CheckReport> report_;
  std::optional<Plan> plan_;
  ImageResult result_;
  std::string message_;
};

}  // namespace

int RunOnImage(const std::string& path, const ImgfsckOptions& options, Progress& progress,
               DatabaseFile* database) {
  return Runner(path, options, progress, database).Run();
}

}  // namespace imgfsck
