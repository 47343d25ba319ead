// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "io/file.h"
#include "repair/engine.h"
#include "repair/orphan_files.h"
#include "repair/output.h"
#include "repair/plan_file.h"
#include "repair/transaction.h"
#include "report/json.h"
#include "report/text.h"
#include "tools/common/exit_codes.h"
#include "tools/common/image.h"
#include "tools/common/sandbox.h"
#include "tools/imgfsck/format_options.h"
#include "tools/imgfsck/names.h"
#include "tools/imgfsck/outputs.h"

namespace imgfsck {
namespace {

class Runner {
 public:
  Runner(const std::string& path, const ImgfsckOptions& options, const RunContext& context)
      : path_(path), options_(options), context_(context) {
    result_.path = path;
  }

  // What --chain found below the image.
  std::vector<ImageBelow> Below() const {
    if (report_) return report_->chain;
    return plan_ ? plan_->before.chain : std::vector<ImageBelow>();
  }

  int Run() {
    context_.progress.Start(path_);
    Status status = Dispatch();
    if (status) status = WriteBeside();
    if (context_.names != nullptr && result_.before) {
      context_.progress.Start("naming files");
      names_ = NamesFor(result_, options_, *context_.names);
      if (status && context_.name_tables != nullptr) status = KeepNames();
    }
    context_.progress.Clear();
    if (!status) result_.error = status.error();
    return Finish();
  }

 private:
  Status Dispatch() {
    if (!options_.rollback.empty()) return DoRollback();
    if (options_.recover) return DoRecover();
    IMG_RETURN_IF_ERROR(LookForInterrupted());
    IMG_ASSIGN_OR_RETURN(image_, OpenImage(path_, options_.format, options_.bad_map, [this] {
                           if (!context_.seal) return;
                           PutOnSandbox("imgfsck", SandboxLevel::kSealed, context_.extra_output());
                         }));
    if (auto text = OptionWithoutUse(options_, *image_.format)) {
      misused_ = true;
      return Error{ErrorCode::kInvalid, *text, {}};
    }
    return options_.mends() ? DoRepair() : DoCheck();
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
    // Nothing to do for an image; a name that leads to none is a mistake.
    if (outcome != RecoverOutcome::kFinished) IMG_RETURN_IF_ERROR(FileSource::Open(path_));
    message_ = outcome == RecoverOutcome::kFinished
                   ? "the interrupted repair is finished; its undo record can roll it back"
                   : "no interrupted repair: nothing to do";
    return Ok();
  }

  // A repair that a crash interrupted is finished before anything else; what writes nothing into
  // the image only says so.
  Status LookForInterrupted() {
    IMG_ASSIGN_OR_RETURN(auto record, InterruptedRepair(path_));
    if (!record) return Ok();
    if (!options_.writes_image()) {
      return Error{ErrorCode::kConflict,
                   fmt::format("a repair was interrupted here; `imgfsck --recover` finishes it "
                               "(undo record: {})",
                               Printable(*record)),
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
      context_.progress.Update(phase, done, total);
    };
    return check;
  }

  Status DoCheck() {
    IMG_ASSIGN_OR_RETURN(report_, CheckImage(image_.source(), *image_.format, CheckSettings()));
    AddCircumstances(&report_->findings);
    result_.before = ResultOf(*report_);
    return Ok();
  }

  void AddCircumstances(Findings* findings) {
    auto add = [&](Problem problem) {
      Finding finding;
      finding.problem = problem;
      findings->Add(std::move(finding));
    };
    if (image_.in_use) add(Problem::kImageInUse);
    if (ChangedSince(image_)) add(Problem::kImageChangedDuringCheck);
    findings->Sort();
  }

  Status DoRepair() {
    if (image_.in_use) {
      return Error{ErrorCode::kLocked,
                   "a running program writes to this image: it cannot be repaired now",
                   {}};
    }
    RepairOptions settings = options_.repair_options;
    settings.check = CheckSettings();
    std::unique_ptr<FileSource> donor;
    if (!options_.donor.empty()) {
      IMG_ASSIGN_OR_RETURN(donor, FileSource::Open(options_.donor));
      settings.donor = donor.get();
    }
    auto plan = options_.apply.empty()
                    ? MakePlan(image_.source(), *image_.format, settings)
                    : LoadPlanFile(options_.apply, image_.source(), *image_.format,
                                   KitFor(*image_.format, settings.check));
    if (!plan) return Error(std::move(plan).error());
    if (ChangedSince(image_)) {  // a mixture of two states was examined: perhaps nobody's damage
      return Error{ErrorCode::kConflict,
                   "the image changed while its repair was worked out; nothing was written, run "
                   "imgfsck again",
                   {}};
    }
    plan_ = std::move(*plan);
    result_.before = ResultOf(plan_->before);
    if (!plan_->Empty()) result_.after = ResultOf(plan_->after);
    result_.repair =
        SummaryOf(*plan_, options_.apply.empty() ? ToText(options_.repair_options.mode) : "plan");
    result_.repair->dry_run = options_.dry_run || !options_.plan.empty();
    if (auto done = CarryOut(settings.check); !done) {  // then nothing was repaired
      result_.repair.reset();
      result_.after.reset();
      return done;
    }
    return Ok();
  }

  Status CarryOut(const CheckOptions& check) {
    if (!options_.plan.empty()) {
      result_.repair->plan_file = options_.plan;
      return WritePlanFile(*plan_, options_.plan, path_, options_.repair_options.mode);
    }
    if (options_.dry_run) return Ok();
    IMG_RETURN_IF_ERROR(WriteOrphans());
    if (!options_.output.empty()) return WriteCopy(check);
    if (plan_->Empty()) return Ok();
    CommitOptions commit;
    commit.undo_path = options_.undo;
    commit.keep_undo = !options_.no_undo;
    IMG_ASSIGN_OR_RETURN(CommitResult done, Commit(path_, *plan_->overlay,
                                                   {image_.identity, plan_->patch_hash}, commit));
    result_.repair->undo_file = done.undo_path;
    AddNotes(std::move(done.notes));
    return Ok();
  }

  // Before the commit: when they cannot be kept, nothing is repaired.
  Status WriteOrphans() {
    if (options_.repair_options.orphans != OrphanPolicy::kDirectory) return Ok();
    const std::string& directory = options_.repair_options.orphan_directory;
    IMG_ASSIGN_OR_RETURN(const OrphanFiles written,
                         WriteOrphanFiles(image_.source(), *plan_, directory));
    result_.repair->orphans.where = directory;
    result_.notes.push_back(fmt::format("{} orphaned ranges ({}) were written to {}{}",
                                        written.files, HumanSize(written.bytes),
                                        Printable(directory),
                                        written.complete ? ""
                                                         : "; there are more, raise "
                                                           "--max-findings"));
    return Ok();
  }

  Status WriteCopy(const CheckOptions& check) {
    Overlay copy(static_cast<const ByteSource&>(*plan_->overlay));
    const auto names = NamesThatChangeMeaning(*plan_->Final().rows, path_, options_.output);
    if (!names.empty() && options_.rebase_names) {
      IMG_RETURN_IF_ERROR(RebaseNames(copy, *image_.format, check, path_, options_.output));
      result_.notes.push_back("the backing file's name was rewritten for the new folder");
    } else {
      for (const LinkRow& link : names) {
        result_.notes.push_back(
            fmt::format("the {} name {} is relative and means another file in the folder of {}; "
                        "--rebase-names rewrites it",
                        link.kind, Printable(link.name), Printable(options_.output)));
      }
    }
    IMG_ASSIGN_OR_RETURN(OutputResult written, WriteOutput(copy, options_.output, check.progress));
    if (ChangedSince(image_)) {
      unlink(options_.output.c_str());
      return Error{ErrorCode::kConflict, "the image changed while it was copied; run it again", {}};
    }
    result_.repair->output = options_.output;
    if (plan_->Empty()) {
      result_.notes.push_back(
          fmt::format("{} is a copy without changes", Printable(options_.output)));
    }
    AddNotes(std::move(written.notes));
    return Ok();
  }

  void AddNotes(std::vector<std::string> notes) {
    for (std::string& note : notes) result_.notes.push_back(std::move(note));
  }

  Status WriteBeside() {
    if (!result_.before) return Ok();
    if (!options_.lost_map.empty()) {
      IMG_RETURN_IF_ERROR(WriteLostMap(result_, options_.lost_map));
    }
    if (context_.database == nullptr) return Ok();
    const CheckReport& report = report_ ? *report_ : plan_->Final();
    return AddToDatabase(report, context_.image_id, context_.database);
  }

  Status KeepNames() {
    for (const auto& [layer, facts] : names_->layers) {
      IMG_RETURN_IF_ERROR(context_.name_tables->Add(context_.image_id, layer, facts));
    }
    return Ok();
  }

  int Finish() {
    if (result_.error && result_.error->code == ErrorCode::kInterrupted) {
      PrintMessage("imgfsck", path_, "stopped; nothing half-written is left");
      return kExitStopped;
    }
    if (misused_) {
      PrintMessage("imgfsck", path_, result_.error->message);
      return kExitUsage;
    }
    const bool only_acted = !options_.rollback.empty() || options_.recover;
    result_.exit_code = only_acted ? (result_.error ? kExitFailed : kExitClean)
                                   : ExitCodeOf(result_, options_.fail_on, options_.exit_style);
    if (only_acted && !options_.json) {
      PrintMessage("imgfsck", path_, result_.error ? result_.error->message : message_);
      return result_.exit_code;
    }
    if (!message_.empty()) result_.notes.push_back(message_);
    // What failed is for whoever runs the tool, also when results go to a file.
    if (result_.error) {
      PrintMessage("imgfsck", path_, result_.error->message);
      if (!options_.json && !result_.before) return result_.exit_code;
    }
    return Print() ? result_.exit_code : kExitFailed;
  }

  bool Print() {
    ReportOptions report;
    report.max_findings = options_.max_findings;
    report.verbosity = options_.verbosity;
    report.fail_on = options_.fail_on;
    if (names_) report.names = &*names_;
    report.colour = !options_.json && WantsColour(STDOUT_FILENO);
    TextWriter out(STDOUT_FILENO);
    if (options_.json) {
      WriteImageJson(result_, report, out);
    } else {
      if (context_.image_id > 1 && options_.verbosity >= 0) out.Put('\n');
      WriteImageText(result_, report, out);
    }
    return out.Finish().has_value();
  }

  const std::string path_;
  const ImgfsckOptions& options_;
  const RunContext& context_;
  OpenedImage image_;
  std::optional<CheckReport> report_;
  std::optional<Plan> plan_;
  ImageResult result_;
  std::optional<GuestNames> names_;
  std::string message_;
  bool misused_ = false;  // an option means nothing for this image
};

}  // namespace

int RunOnImage(const std::string& path, const ImgfsckOptions& options, RunContext& context) {
  Runner runner(path, options, context);
  int status = runner.Run();
  // The images below are only checked, each as one of its own, whatever happens to the one on top.
  ImgfsckOptions below = options;
  below.repair = false;
  below.output = below.plan = below.apply = below.lost_map = below.bad_map = "";
  below.repair_options = RepairOptions{};
  below.repair_options.check.deep = options.repair_options.check.deep;
  below.repair_options.check.threads = options.repair_options.check.threads;
  below.repair_options.check.max_findings = options.repair_options.check.max_findings;
  below.repair_options.check.passphrase = options.repair_options.check.passphrase;
  for (const ImageBelow& file : runner.Below()) {
    if (status == kExitStopped) break;
    below.format = file.format->name;
    // The parents of a VHD are looked at by its own check, not listed with the images below.
    below.repair_options.check.chain = below.format == "vpc";
    context.image_id = context.next_id++;
    const int one = Runner(file.path, below, context).Run();
    if (one == kExitStopped) return one;
    status = options.exit_style == ExitStyle::kQemu ? std::max(status, one) : status | one;
  }
  return status;
}

}  // namespace imgfsck
