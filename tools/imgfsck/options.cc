// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/text.h"
#include "formats/format.h"
#include "tools/common/command_line.h"
#include "tools/common/exit_codes.h"
#include "tools/common/markdown.h"

namespace imgfsck {
namespace {

constexpr const char* kDescription =
    "Checks virtual-disk images, and repairs them without making anything worse.\n"
    "A check never writes. A repair is computed and checked on the side first, keeps an undo "
    "record, and can be rolled back byte for byte.";

constexpr const char* kFooter =
    "Exit status: 0 nothing to report, 1 problems found and all repaired, 4 problems left, 8 could "
    "not do it, 16 usage, 32 stopped by a signal.";

// The texts as read; turned into types afterwards.
struct Raw {
  std::string repair, orphans, max_copy, fail_on, exit_style, size_policy = "auto", profile;
  std::vector<std::string> fix;
  bool chain = false, deep = false, quiet = false, verbose = false;
  unsigned threads = 0;
  std::string relink;
};

void Declare(CLI::App& app, ImgfsckOptions& o, Raw& raw) {
  app.add_option("IMAGE", o.images, "Image files or block devices");
  app.add_option("-r,--repair", raw.repair,
                 "Repair. safe (the default): every repair after which no guest byte that can be "
                 "read today reads differently; leaks: only give back unused space that holds "
                 "nothing worth keeping; all: also repairs that cost guest data, each named")
      ->type_name("[=safe|leaks|all]");
  app.add_flag("-n,--dry-run", o.dry_run,
               "With --repair: compute, verify and print, write nothing");
  app.add_option("--output", o.output,
                 "With --repair: leave IMAGE alone, write the repaired image to FILE")
      ->type_name("FILE");
  app.add_option("--undo", o.undo, "Where the undo record goes (default IMAGE.imgfsck-undo)")
      ->type_name("FILE");
  app.add_flag("--no-undo", o.no_undo, "Keep no undo record once the repair is complete");
  app.add_option("--rollback", o.rollback, "Put IMAGE back byte for byte from this undo record")
      ->type_name("FILE");
  app.add_option("--plan", o.plan, "Write the verified repair plan for review, change nothing")
      ->type_name("FILE");
  app.add_option("--apply", o.apply, "Apply exactly this plan")->type_name("FILE");
  app.add_flag("--recover", o.recover, "Finish a repair that a crash interrupted");
  app.add_flag("--chain", raw.chain, "Also check every backing file or parent, read-only");
  app.add_flag("--deep", raw.deep, "Also decode what can be decoded (compressed clusters, ...)");
  app.add_option("--orphans", raw.orphans, "What becomes of unreferenced clusters with content")
      ->type_name("keep|snapshot|dir:PATH|free");
  app.add_option("--donor", o.donor, "An older copy of the disk that may lend lost metadata")
      ->type_name("IMAGE");
  app.add_option("--lost-map", o.lost_map, "Write lost guest ranges as a GNU ddrescue mapfile")
      ->type_name("FILE");
  app.add_option("--password-file", o.password_file, "Passphrase of an encrypted image")
      ->type_name("FILE");
  app.add_flag("--json", o.json, "One JSON document an image on stdout, a line each");
  app.add_option("--db", o.db, "Keep the whole model, findings included, as an SQLite database")
      ->type_name("FILE");
  app.add_option("--fail-on", raw.fail_on, "The lowest severity that makes the exit status 4")
      ->type_name("corruption|leak|warning");
  app.add_option("--threads", raw.threads, "Threads (default: all cores)")->type_name("N");
  app.add_option("--explain", o.explain, "Explain a problem code")->type_name("CODE");
  app.add_flag("--list-problems", o.list_problems, "List every problem that can be found");
  app.add_option("--format", o.format, "Take the image to be of this format")->type_name("FORMAT");
  app.add_option("--max-findings", o.max_findings, "Findings listed (the totals count all)")
      ->type_name("N");
  app.add_option("--exit-style", raw.exit_style, "Exit statuses of fsck(8) or of qemu-img check")
      ->type_name("fsck|qemu");
  app.add_flag("--exit-zero", o.exit_zero, "Exit with 0 unless the tool itself failed");
  app.add_option("--fix", raw.fix, "With --repair: also repair this problem (repeatable)")
      ->type_name("CODE")
      ->allow_extra_args(false);
  app.add_option("--max-copy", raw.max_copy, "Bytes that splitting shared clusters may copy")
      ->type_name("SIZE");
  app.add_option("--relink", raw.relink,
                 "With --repair: link a moved chain to this parent (vpc, cow)")
      ->type_name("PARENT");
  app.add_option("--profile", raw.profile, "Also check the rules of a platform: azure (vpc)")
      ->type_name("NAME");
  app.add_flag("--names", o.names,
               "Name the guest files that findings, lost ranges and dirty bitmaps concern");
  app.add_option("--report", o.report,
                 "Write an HTML page of the images as they are when all is done")
      ->type_name("FILE");
  app.add_option("--size-policy", raw.size_policy, "Which size a vpc image has")
      ->type_name("chs|current_size|auto");
  app.add_flag("--no-sandbox", o.no_sandbox,
               "Do without the system call filter that a hostile image would meet");
  app.add_option("--bad-map", o.bad_map, "A ddrescue map of what the medium could not read")
      ->type_name("FILE");
  app.add_flag("--rebase-names", o.rebase_names, "With --output: rewrite relative backing names");
  app.add_flag("--progress", o.progress, "Show progress even when stderr is no terminal");
  app.add_flag("-q,--quiet", raw.quiet, "Say less");
  app.add_flag("-v,--verbose", raw.verbose, "Say more");
  app.set_version_flag("--version", std::string("imgfsck ") + IMGFSCK_VERSION);
  app.footer(kFooter);
}

bool IsMode(const std::string& text) { return text == "safe" || text == "leaks" || text == "all"; }

// "-r" and "--repair" have an optional value that only "=" (or nothing, for -r) may join to them.
// Returns a hint when a mode stands where an image should.
std::optional<std::string> JoinRepair(std::vector<std::string>* arguments) {
  for (size_t i = 0; i < arguments->size(); ++i) {
    std::string& a = (*arguments)[i];
    if (a == "--") break;
    bool bare = a == "--repair";
    bool cluster = a.size() >= 2 && a[0] == '-' && a.find('r') != std::string::npos &&
                   a.find_first_not_of("nqvr", 1) == std::string::npos;
    if (!cluster && a.starts_with("-r")) {
      std::string value = a.substr(a[2] == '=' ? 3 : 2);
      if (IsMode(value)) a = "--repair=" + value;
      continue;
    }
    if (!bare && !cluster) continue;
    if (i + 1 < arguments->size() && IsMode((*arguments)[i + 1])) {
      return fmt::format("'{} {}' would take '{}' for an image: write --repair={}", a,
                         (*arguments)[i + 1], (*arguments)[i + 1], (*arguments)[i + 1]);
    }
    std::string flags = cluster ? a : "-";
    std::erase(flags, 'r');
    a = "--repair=safe";
    if (flags != "-") {
      arguments->insert(arguments->begin() + static_cast<ptrdiff_t>(i), flags);
      ++i;
    }
  }
  return std::nullopt;
}

// Reads one option's text into a type, or fails with a sentence.
class Interpreter {
 public:
  Interpreter(const Raw& raw, ImgfsckOptions* o) : raw_(raw), o_(*o) {}

  std::optional<std::string> Run() {
    ReadRepair();
    ReadOrphans();
    ReadChoices();
    ReadProblems();
    CheckCombinations();
    return error_;
  }

 private:
  void Fail(std::string text) {
    if (!error_) error_ = std::move(text);
  }

  void ReadRepair() {
    if (raw_.repair.empty()) return;
    o_.repair = true;
    if (raw_.repair == "leaks")
      o_.repair_options.mode = RepairMode::kLeaks;
    else if (raw_.repair == "safe")
      o_.repair_options.mode = RepairMode::kSafe;
    else if (raw_.repair == "all")
      o_.repair_options.mode = RepairMode::kAll;
    else
      Fail(fmt::format("--repair takes safe, leaks or all, not '{}'", raw_.repair));
  }
  void ReadOrphans() {
    RepairOptions& r = o_.repair_options;
    if (raw_.orphans.empty()) return;
    if (raw_.orphans == "keep")
      r.orphans = OrphanPolicy::kKeep;
    else if (raw_.orphans == "snapshot")
      r.orphans = OrphanPolicy::kSnapshot;
    else if (raw_.orphans == "free")
      r.orphans = OrphanPolicy::kFree;
    else if (raw_.orphans.starts_with("dir:") && raw_.orphans.size() > 4) {
      r.orphans = OrphanPolicy::kDirectory;
      r.orphan_directory = raw_.orphans.substr(4);
    } else {
      Fail("--orphans takes keep, snapshot, dir:PATH or free");
    }
  }
  void ReadChoices() {
    CheckOptions& c = o_.repair_options.check;
    c.chain = raw_.chain;
    c.deep = raw_.deep;
    c.threads = raw_.threads;
    c.profile = raw_.profile;
    c.size_policy = raw_.size_policy;
    // What is kept also serves to judge a repair; how many are listed is the report's business.
    c.max_findings = std::max(o_.max_findings, Findings::kDefaultKeep);
    o_.repair_options.relink_parent = raw_.relink;
    o_.verbosity = raw_.quiet ? -1 : raw_.verbose ? 1 : 0;
    if (raw_.fail_on == "corruption")
      o_.fail_on = Severity::kCorruption;
    else if (raw_.fail_on == "warning")
      o_.fail_on = Severity::kWarning;
    else if (!raw_.fail_on.empty() && raw_.fail_on != "leak") {
      Fail("--fail-on takes corruption, leak or warning");
    }
    if (raw_.exit_style == "qemu")
      o_.exit_style = ExitStyle::kQemu;
    else if (!raw_.exit_style.empty() && raw_.exit_style != "fsck") {
      Fail("--exit-style takes fsck or qemu");
    }
    if (raw_.size_policy != "auto" && raw_.size_policy != "chs" &&
        raw_.size_policy != "current_size") {
      Fail("--size-policy takes chs, current_size or auto");
    }
    if (!raw_.profile.empty() && raw_.profile != "azure") {
      Fail(fmt::format("the only profile is azure, not '{}'", raw_.profile));
    }
    if (!raw_.max_copy.empty()) {
      auto size = ParseSize(raw_.max_copy);
      if (!size) Fail(fmt::format("'{}' is no size", raw_.max_copy));
      o_.repair_options.max_copy = size.value_or(0);
    }
  }
  void ReadProblems() {
    for (const std::string& code : raw_.fix) {
      const ProblemInfo* info = FindProblem(code);
      if (info == nullptr) {
        Fail(fmt::format("unknown problem code '{}' (--list-problems lists them)", code));
      } else {
        o_.repair_options.also_fix.insert(info->problem);
      }
    }
    if (!o_.explain.empty() && FindProblem(o_.explain) == nullptr) {
      Fail(fmt::format("unknown problem code '{}' (--list-problems lists them)", o_.explain));
    }
  }
  void CheckCombinations() {
    bool catalogue = !o_.explain.empty() || o_.list_problems;
    if (o_.images.empty() && !catalogue) Fail("no image given");
    int actions = o_.repair + !o_.rollback.empty() + o_.recover + !o_.apply.empty();
    if (actions > 1) Fail("--repair, --rollback, --recover and --apply exclude one another");
    bool single = !o_.output.empty() || !o_.undo.empty() || !o_.rollback.empty() ||
                  !o_.plan.empty() || !o_.apply.empty() || !o_.lost_map.empty();
    if (single && o_.images.size() > 1) {
      Fail("--output, --undo, --rollback, --plan, --apply and --lost-map take one image");
    }
    if (!o_.repair && (!o_.plan.empty() || !o_.repair_options.also_fix.empty() ||
                       !raw_.orphans.empty() || !raw_.max_copy.empty() || !raw_.relink.empty())) {
      Fail("--plan, --fix, --orphans, --max-copy and --relink go with --repair");
    }
    if (!o_.repair && !o_.donor.empty()) Fail("--donor goes with --repair");
    if (!o_.mends() && (!o_.output.empty() || o_.dry_run || o_.no_undo)) {
      Fail("--dry-run, --output and --no-undo go with --repair or --apply");
    }
    if (!o_.undo.empty() && !o_.mends() && !o_.recover) {
      Fail("--undo goes with --repair, --apply or --recover");
    }
    if (o_.rebase_names && o_.output.empty()) Fail("--rebase-names goes with --output");
    if (!o_.output.empty() && (!o_.undo.empty() || o_.no_undo || o_.dry_run)) {
      Fail("--output writes a new file: --undo, --no-undo and --dry-run do not go with it");
    }
    if (!o_.format.empty() && FindFormat(o_.format) == nullptr) {
      Fail(fmt::format("unknown format '{}'", o_.format));
    }
    if (!o_.report.empty() && (!o_.format.empty() || !o_.bad_map.empty())) {
      Fail("--format and --bad-map do not go with --report, which looks at images by itself");
    }
    if (!o_.undo.empty() && o_.no_undo) Fail("--undo and --no-undo exclude each other");
    if (!o_.plan.empty() && !o_.output.empty()) Fail("--plan and --output exclude each other");
  }

  const Raw& raw_;
  ImgfsckOptions& o_;
  std::optional<std::string> error_;
};

}  // namespace

ParsedImgfsck ParseImgfsck(std::vector<std::string> arguments) {
  ParsedImgfsck parsed;
  auto usage = [&](const std::string& what) { return parsed.End(UsageError("imgfsck", what)); };
  if (auto hint = JoinRepair(&arguments)) return usage(*hint);
  CLI::App app(kDescription, "imgfsck");
  Raw raw;
  Declare(app, parsed.options, raw);
  if (auto end = ReadArguments(app, std::move(arguments), ImgfsckOptionsMarkdown)) {
    return parsed.End(*std::move(end));
  }
  if (auto error = Interpreter(raw, &parsed.options).Run()) return usage(*error);
  return parsed;
}

SandboxLevel ImgfsckOptions::sandbox() const {
  if (no_sandbox) return SandboxLevel::kNone;
  const bool writes = mends() || recover || !rollback.empty() || !db.empty() || !lost_map.empty();
  if (writes) return SandboxLevel::kWriteFiles;
  return repair_options.check.chain ? SandboxLevel::kReadFiles : SandboxLevel::kSealed;
}

std::string ImgfsckOptionsMarkdown() {
  CLI::App app(kDescription, "imgfsck");
  ImgfsckOptions options;
  Raw raw;
  Declare(app, options, raw);
  return OptionsMarkdown(app, "[options] IMAGE...", kDescription, kFooter);
}

}  // namespace imgfsck
