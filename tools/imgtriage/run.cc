// SPDX-License-Identifier: Apache-2.0
#include "tools/imgtriage/run.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <optional>

#include "base/text.h"
#include "io/file.h"
#include "io/sha256.h"
#include "tools/common/exit_codes.h"
#include "tools/common/sandbox.h"
#include "tools/common/terminal.h"
#include "triage/attention.h"
#include "triage/custody.h"
#include "triage/report/database.h"
#include "triage/report/dfxml.h"
#include "triage/report/html.h"
#include "triage/report/json.h"
#include "triage/report/orphan_index.h"
#include "triage/report/text.h"
#include "triage/report/timeline.h"
#include "triage/temp_folder.h"

namespace imgfsck {
namespace {

constexpr const char* kTool = "imgtriage";

class Run {
 public:
  explicit Run(const ImgtriageOptions& options)
      : options_(options), progress_(kTool, options.progress) {}

  int Do() {
    if (auto error = MisplacedOutput()) {
      PrintMessage(kTool, "", *error);
      return kExitUsage;
    }
    int code = kExitClean;
    auto done = Work();
    progress_.Clear();
    if (!done) {
      PrintMessage(kTool, "", done.error().message);
      code = ExitCodeFor(done.error());
    } else {
      code = ExitCodeOf(result_) | (incomplete_ ? kExitFailed : kExitClean);
      if (options_.exit_zero) code &= kExitFailed;
    }
    if (log_ == nullptr) return code;
    if (auto ended = log_->End(code); !ended) {
      PrintMessage(kTool, options_.custody_log, ended.error().message);
      code |= kExitFailed;
    }
    return code;
  }

 private:
  // Nothing is written beside the evidence.
  std::optional<std::string> MisplacedOutput() const {
    std::vector<std::string> outputs = options_.Outputs();
    if (!options_.custody_log.empty()) outputs.push_back(options_.custody_log);
    for (const std::string& path : outputs) {
      if (LiesBelow(path, options_.settings.paths)) {
        return fmt::format(
            "{} would lie among the files that are examined: choose another place for it",
            Printable(path));
      }
    }
    return std::nullopt;
  }

  // Before hours of work.
  Status CheckOutputs() const {
    for (const std::string& path : options_.Outputs()) {
      struct stat info;
      if (lstat(path.c_str(), &info) != 0) continue;
      return Error{ErrorCode::kExists,
                   fmt::format("{} exists already and is not overwritten", Printable(path)),
                   {}};
    }
    return Ok();
  }

  // Workers open what they examine themselves; they write what they copy out and their models, and
  // the database that answers rules may need temporary files.
  SandboxLevel WorkersNeed() const {
    if (options_.no_sandbox) return SandboxLevel::kNone;
    const bool writes =
        !options_.orphans.empty() || !options_.rules.empty() || !options_.db.empty();
    return writes ? SandboxLevel::kWriteFiles : SandboxLevel::kReadFiles;
  }

  Status Work() {
    IMG_RETURN_IF_ERROR(CheckOutputs());
    if (!options_.custody_log.empty()) {
      IMG_ASSIGN_OR_RETURN(log_, CustodyLog::Open(options_.custody_log));
      IMG_RETURN_IF_ERROR(log_->Start(options_.command_line));
    }
    TriageSettings settings = options_.settings;
    settings.sandbox = UsableSandbox(kTool, WorkersNeed());
    settings.progress = [this](std::string_view phase, uint64_t done, uint64_t total) {
      progress_.Update(phase, done, total);
    };
    std::optional<TempFolder> models;
    if (!options_.db.empty()) {
      IMG_ASSIGN_OR_RETURN(models, TempFolder::Make());
      settings.model_folder = models->path();
    }
    if (!options_.rules.empty()) {
      IMG_ASSIGN_OR_RETURN(settings.examine.rules, LoadRules(options_.rules));
    }
    if (!options_.orphans.empty()) {
      if (mkdir(options_.orphans.c_str(), 0700) != 0) {
        return ErrorFromErrno(errno, "create " + Printable(options_.orphans));
      }
      settings.orphan_folder = options_.orphans;
    }
    progress_.Start("triage");
    IMG_ASSIGN_OR_RETURN(result_, RunTriage(settings));
    progress_.Clear();
    if (log_ != nullptr) IMG_RETURN_IF_ERROR(LogFiles());
    if (!options_.orphans.empty()) {
      IMG_RETURN_IF_ERROR(WriteFile(options_.orphans + "/index.tsv",
                                    [&](TextWriter& out) { WriteOrphanIndex(result_, out); }));
    }
    if (models) IMG_RETURN_IF_ERROR(WriteDatabase(models->path()));
    return WriteReports();
  }

  Status WriteDatabase(const std::string& folder) {
    std::vector<std::string> models;
    for (size_t i = 0; i < result_.files.size(); ++i) {
      const ImageFacts& facts = result_.files[i].facts;
      models.push_back(ModelPath(folder, i));
      if (facts.model_trouble.empty()) continue;
      incomplete_ = true;
      PrintMessage(kTool, result_.files[i].file.path,
                   fmt::format("not in the database: {}", facts.model_trouble));
    }
    IMG_ASSIGN_OR_RETURN(const auto troubles, WriteTriageDatabase(result_, models, options_.db));
    for (const ModelTrouble& trouble : troubles) {
      incomplete_ = true;
      PrintMessage(kTool, result_.files[trouble.file].file.path,
                   fmt::format("not in the database: {}", trouble.message));
    }
    return LogOutput(options_.db);
  }

  Status LogFiles() {
    for (const TriagedFile& file : result_.files) {
      IMG_RETURN_IF_ERROR(log_->Record("examined", [&](JsonWriter& json) {
        json.Member("path", file.file.path);
        json.Member("device", file.file.identity.device);
        json.Member("inode", file.file.identity.inode);
        json.Member("size", file.file.identity.size);
        json.Member("mtime-ns", file.file.identity.mtime_ns);
        json.Member("ctime-ns", file.file.identity.ctime_ns);
        for (const auto& [name, digest] : file.facts.container.digests) json.Member(name, digest);
        if (file.untouched) json.Member("untouched", *file.untouched);
        if (file.is_image()) json.Member("verdict", ToText(file.verdict));
      }));
    }
    return Ok();
  }

  // A new file with what `write` puts into it, noted in the custody log by its hash.
  Status WriteFile(const std::string& path, const std::function<void(TextWriter& out)>& write) {
    if (path.empty()) return Ok();
    IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(path, FileStore::Mode::kCreateNew));
    TextWriter out(file->fd());
    write(out);
    IMG_RETURN_IF_ERROR(out.Finish());
    IMG_RETURN_IF_ERROR(file->Sync());
    return LogOutput(path);
  }

  Status LogOutput(const std::string& path) {
    if (log_ == nullptr) return Ok();
    IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
    HashOptions options;
    options.sha256 = true;
    IMG_ASSIGN_OR_RETURN(const HashFacts hash, Hash(HashSourceOf(*file), options));
    return log_->Record("wrote", [&](JsonWriter& json) {
      json.Member("path", path);
      json.Member("size", hash.bytes);
      json.Member("sha256", hash.digests.at("sha256"));
    });
  }

  // Each into its file; what goes to "-" takes the place of the text on stdout.
  Status WriteReports() {
    using Writer = std::function<void(TextWriter & out)>;
    const std::pair<const std::string&, Writer> reports[] = {
        {options_.json, [&](TextWriter& out) { WriteTriageJson(result_, out); }},
        {options_.report, [&](TextWriter& out) { WriteHtml(result_, false, out); }},
        {options_.dfxml, [&](TextWriter& out) { WriteDfxml(result_, out); }},
        {options_.bodyfile, [&](TextWriter& out) { WriteBodyfile(result_, out); }},
        {options_.timesketch, [&](TextWriter& out) { WriteTimesketch(result_, out); }}};
    Writer to_stdout = [&](TextWriter& out) {
      WriteTriageText(result_, {options_.verbosity, WantsColour(STDOUT_FILENO)}, out);
    };
    for (const auto& [path, write] : reports) {
      if (path == "-") {
        to_stdout = write;
      } else {
        IMG_RETURN_IF_ERROR(WriteFile(path, write));
      }
    }
    TextWriter out(STDOUT_FILENO);
    to_stdout(out);
    return out.Finish();
  }

  const ImgtriageOptions& options_;
  Progress progress_;
  std::unique_ptr<CustodyLog> log_;
  TriageResult result_;
  bool incomplete_ = false;  // something is not in the database that was asked for
};

int VerifyLog(const std::string& path) {
  auto state = VerifyCustodyLog(path);
  if (!state) {
    PrintMessage(kTool, path, state.error().message);
    return kExitFailed;
  }
  std::string text = fmt::format("{}: ", Printable(path));
  if (state->broken_record != 0) {
    text += fmt::format("BROKEN at record {}: {}", state->broken_record, state->trouble);
  } else {
    text += fmt::format(
        "unbroken: {} records of {} runs, {} of them without an end; the last "
        "record's SHA-256 is {}",
        state->records, state->runs, state->unfinished, state->last_hash);
  }
  fmt::print("{}\n", text);
  return state->broken_record != 0 || state->unfinished != 0 ? kExitProblemsLeft : kExitClean;
}

}  // namespace

int RunImgtriage(const ImgtriageOptions& options) {
  return options.verify_log.empty() ? Run(options).Do() : VerifyLog(options.verify_log);
}

}  // namespace imgfsck
