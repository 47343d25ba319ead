// SPDX-License-Identifier: Apache-2.0
#include "tools/imgtriage/run.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "base/text.h"
#include "io/file.h"
#include "tools/common/exit_codes.h"
#include "tools/common/terminal.h"
#include "triage/examine.h"
#include "triage/report/json.h"
#include "triage/report/text.h"

namespace imgfsck {
namespace {

constexpr const char* kTool = "imgtriage";
// Besides the ten minutes that any image may take: what the slowest disk reads in a second.
constexpr uint64_t kBytesASecond = 4 * kMiB;

class Triage {
 public:
  explicit Triage(const ImgtriageOptions& options)
      : options_(options), progress_(kTool, options.progress) {}

  int Run() {
    auto done = Work();
    progress_.Clear();
    if (!done) {
      PrintMessage(kTool, "", done.error().message);
      return done.error().code == ErrorCode::kPermission && refused_ ? kExitUsage
                                                                     : ExitCodeFor(done.error());
    }
    const int code = ExitCodeOf(result_);
    return options_.exit_zero ? code & kExitFailed : code;
  }

 private:
  Status Work() {
    IMG_RETURN_IF_ERROR(CheckOutputs());
    progress_.Start("searching");
    IMG_ASSIGN_OR_RETURN(Inventory inventory, TakeInventory(options_.paths));
    Take(std::move(inventory));
    IMG_RETURN_IF_ERROR(ExamineAll());
    Conclude(&result_);
    progress_.Clear();
    return WriteReports();
  }

  // Before hours of work: nothing is written beside the evidence, nothing is overwritten.
  Status CheckOutputs() {
    for (const std::string& path : options_.Outputs()) {
      struct stat info;
      if (LiesBelow(path, options_.paths)) {
        refused_ = true;
        return Error{ErrorCode::kPermission,
                     fmt::format("{} would lie among the files that are examined: choose another "
                                 "place for it",
                                 Printable(path)),
                     {}};
      }
      if (lstat(path.c_str(), &info) == 0) {
        return Error{ErrorCode::kExists,
                     fmt::format("{} exists already and is not overwritten", Printable(path)),
                     {}};
      }
    }
    return Ok();
  }

  void Take(Inventory inventory) {
    result_.policy = options_.policy;
    result_.fail_on = options_.fail_on;
    result_.max_findings = options_.max_findings;
    result_.errors = std::move(inventory.errors);
    result_.directories = inventory.directories;
    result_.symlinks = inventory.symlinks;
    result_.specials = inventory.specials;
    for (FoundFile& file : inventory.files) result_.files.push_back({std::move(file), {}, {}});
  }

  WorkerLimits LimitsOf(const FoundFile& file) const {
    WorkerLimits limits = options_.limits;
    if (!options_.limit_time) {
      limits.seconds +=
          static_cast<unsigned>(std::min<uint64_t>(file.stored / kBytesASecond, 10'000'000));
    }
    return limits;
  }

  Status ExamineAll() {
    std::vector<TriagedFile>& files = result_.files;
    PoolOptions pool;
    pool.jobs = options_.jobs;
    pool.limits_of = [&](size_t i) { return LimitsOf(files[i].file); };
    pool.progress = [&](size_t done) { progress_.Update("examining", done, files.size()); };
    progress_.Start(Plural(files.size()));
    ExamineOptions examine;
    examine.deep = options_.deep;
    examine.max_findings = options_.max_findings;
    examine.policy = options_.policy_options;
    examine.threads = static_cast<unsigned>(
        std::max<size_t>(1, options_.jobs / std::max<size_t>(1, files.size())));
    return RunWorkers(
        files.size(), pool,
        [&](size_t i, Sender& sender) { Examine(files[i].file, examine, sender); },
        [&](size_t i, WorkerOutcome outcome) { files[i].facts = FactsOf(outcome); });
  }

  static std::string Plural(size_t files) {
    return fmt::format("{} {}", files, files == 1 ? "file" : "files");
  }

  // A new file with what `write` puts into it.
  static Status WriteFile(const std::string& path,
                          const std::function<void(TextWriter& out)>& write) {
    IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(path, FileStore::Mode::kCreateNew));
    TextWriter out(file->fd());
    write(out);
    IMG_RETURN_IF_ERROR(out.Finish());
    return file->Sync();
  }

  Status WriteReports() {
    if (!options_.json.empty() && options_.json != "-") {
      IMG_RETURN_IF_ERROR(
          WriteFile(options_.json, [&](TextWriter& out) { WriteTriageJson(result_, out); }));
    }
    TextWriter out(STDOUT_FILENO);
    if (options_.json == "-") {
      WriteTriageJson(result_, out);
    } else {
      WriteTriageText(result_, {options_.verbosity, WantsColour(STDOUT_FILENO)}, out);
    }
    return out.Finish();
  }

  const ImgtriageOptions& options_;
  Progress progress_;
  TriageResult result_;
  bool refused_ = false;
};

}  // namespace

int RunTriage(const ImgtriageOptions& options) { return Triage(options).Run(); }

}  // namespace imgfsck
