// SPDX-License-Identifier: Apache-2.0
#include "tools/imgtriage/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/parallel.h"
#include "base/text.h"
#include "tools/common/command_line.h"
#include "tools/common/exit_codes.h"
#include "tools/common/markdown.h"

namespace imgfsck {
namespace {

constexpr const char* kDescription =
    "Looks through files and directories for disk images, untrusted and damaged ones among them, "
    "and says what to look at first.\n"
    "Never writes to an image or beside it, and opens no file that an image names.";

constexpr const char* kFooter =
    "Exit status: 0 nothing to look at, 4 something is, 8 could not do (all of) it, 16 usage, 32 "
    "stopped by a signal.";

// The texts as read; turned into types afterwards.
struct Raw {
  std::string policy = "openstack", fail_on = "leak", max_memory, max_time, max_disk, hash;
  bool quiet = false, verbose = false;
};

void Declare(CLI::App& app, ImgtriageOptions& o, Raw& raw) {
  TriageSettings& s = o.settings;
  s.jobs = 0;
  app.add_option("PATH", s.paths, "Images, block devices, and directories to search");
  app.add_option("--report", o.report, "Write an HTML page that needs nothing else")
      ->type_name("FILE");
  app.add_option("--json", o.json,
                 "Write a JSON document a file, a line each (for each report: - is stdout)")
      ->type_name("FILE");
  app.add_option("--db", o.db,
                 "Write the models of all images, and all else, as an SQLite database")
      ->type_name("FILE");
  app.add_option("--dfxml", o.dfxml, "Write Digital Forensics XML")->type_name("FILE");
  app.add_option("--bodyfile", o.bodyfile, "Write times as a body file for mactime")
      ->type_name("FILE");
  app.add_option("--timesketch", o.timesketch, "Write times as JSON Lines for Timesketch")
      ->type_name("FILE");
  app.add_option("--hash", raw.hash,
                 "Hash each file, in one reading: md5, sha1, sha256, and pieces (SHA-256 of every "
                 "16 MiB)")
      ->type_name("LIST");
  app.add_flag("--content", s.content,
               "With --hash: also hash the disks, as their guests read them");
  app.add_flag("--names", s.names,
               "Name the guest's files that findings and unclaimed bytes concern");
  app.add_flag("--verify-untouched", s.verify_untouched,
               "Hash every file again at the end, and compare");
  app.add_option("--orphans-to", o.orphans,
                 "Copy what images store and do not claim into this new folder, with an index")
      ->type_name("DIR");
  app.add_flag("--entropy", s.examine.entropy, "Look for what seems encrypted, and by which plan");
  app.add_option("--rules", o.rules, "Run the SQL rules of this folder on every image's model")
      ->type_name("DIR");
  app.add_option("--custody-log", o.custody_log,
                 "Add to this log who examined what when; each record names the one before by its "
                 "hash")
      ->type_name("FILE");
  app.add_option("--verify-log", o.verify_log, "Check that a custody log is unbroken, do no more")
      ->type_name("FILE");
  app.add_option("--policy", raw.policy, "What makes an image unsafe to open")
      ->type_name("openstack|kubevirt|strict");
  app.add_option("--max-disk", raw.max_disk, "A disk larger than this is absurd (64T)")
      ->type_name("SIZE");
  app.add_flag("--list-reasons", o.list_reasons, "List every reason that a verdict can have");
  app.add_option("--fail-on", raw.fail_on, "The lowest severity of damage that needs a look")
      ->type_name("corruption|leak|warning");
  app.add_option("-j,--jobs", s.jobs, "Images examined at a time (default: all cores)")
      ->type_name("N");
  app.add_option("--max-memory", raw.max_memory, "Memory that examining one image may take (2G)")
      ->type_name("SIZE");
  app.add_option("--max-time", raw.max_time,
                 "Seconds that examining one image may take (default: 10 minutes and more for "
                 "large files)")
      ->type_name("SECONDS");
  app.add_flag("--deep", s.examine.deep,
               "Also decode what can be decoded (compressed clusters, ...)");
  app.add_option("--max-findings", s.examine.max_findings,
                 "Findings listed of an image (totals count all)")
      ->type_name("N");
  app.add_flag("--exit-zero", o.exit_zero, "Exit with 0 unless the tool itself failed");
  app.add_flag("--no-sandbox", o.no_sandbox,
               "Do without the system call filter that a hostile image would meet");
  app.add_flag("--progress", o.progress, "Show progress even when stderr is no terminal");
  app.add_flag("-q,--quiet", raw.quiet, "Say less");
  app.add_flag("-v,--verbose", raw.verbose, "Say more");
  app.set_version_flag("--version", std::string("imgtriage ") + IMGFSCK_VERSION);
  app.footer(kFooter);
}

std::optional<std::string> InterpretLimits(const Raw& raw, TriageSettings* s) {
  if (!raw.max_memory.empty()) {
    const auto size = ParseSize(raw.max_memory);
    if (!size || *size < (uint64_t{16} << 20) || *size > (uint64_t{1} << 46)) {
      return "--max-memory takes a size from 16M on";
    }
    s->limits.memory = *size;
  }
  if (!raw.max_disk.empty()) {
    const auto size = ParseSize(raw.max_disk);
    if (!size) return "--max-disk takes a size";
    s->examine.policy.max_disk = *size;
  }
  if (!raw.max_time.empty()) {
    const auto seconds = ParseSize(raw.max_time);
    if (!seconds || *seconds == 0 || *seconds > 10'000'000) return "--max-time takes seconds";
    s->limits.seconds = static_cast<unsigned>(*seconds);
    s->limit_time = true;
  }
  if (s->jobs > 1024) return "--jobs takes a number up to 1024";
  if (s->jobs == 0) s->jobs = UsableCores();
  return std::nullopt;
}

std::optional<std::string> Interpret(const Raw& raw, ImgtriageOptions* o) {
  TriageSettings& s = o->settings;
  const auto policy = ParsePolicy(raw.policy);
  if (!policy) return "--policy takes openstack, kubevirt or strict";
  s.policy = *policy;
  if (raw.fail_on == "corruption") {
    s.fail_on = Severity::kCorruption;
  } else if (raw.fail_on == "warning") {
    s.fail_on = Severity::kWarning;
  } else if (raw.fail_on != "leak") {
    return "--fail-on takes corruption, leak or warning";
  }
  if (auto error = InterpretLimits(raw, &s)) return error;
  if (!raw.hash.empty()) {
    const auto hash = ParseHashOptions(raw.hash);
    if (!hash) return "--hash takes a list of md5, sha1, sha256 and pieces";
    s.examine.hash = *hash;
  }
  if (s.content && raw.hash.empty()) return "--content goes with --hash";
  if (s.verify_untouched && !s.examine.hash.any()) s.examine.hash.sha256 = true;
  s.examine.pictures = !o->report.empty();
  const std::vector<std::string> outputs = o->Outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (outputs[i] == outputs[j]) return fmt::format("{} cannot be two reports", outputs[i]);
    }
  }
  if (std::ranges::count(std::initializer_list<std::string>{o->report, o->json, o->dfxml,
                                                            o->bodyfile, o->timesketch},
                         "-") > 1) {
    return "only one report can go to stdout";
  }
  if (o->db == "-" || o->orphans == "-") return "-: a database or a folder cannot go to stdout";
  o->verbosity = raw.quiet ? -1 : raw.verbose ? 1 : 0;
  if (s.paths.empty() && !o->list_reasons && o->verify_log.empty()) {
    return "no file or directory given";
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> ImgtriageOptions::Outputs() const {
  std::vector<std::string> outputs;
  for (const std::string& path : {report, json, db, dfxml, bodyfile, timesketch, orphans}) {
    if (!path.empty() && path != "-") outputs.push_back(path);
  }
  return outputs;
}

ParsedImgtriage ParseImgtriage(std::vector<std::string> arguments) {
  ParsedImgtriage parsed;
  auto usage = [&](const std::string& what) { return parsed.End(UsageError("imgtriage", what)); };
  parsed.options.command_line = arguments;
  CLI::App app(kDescription, "imgtriage");
  Raw raw;
  Declare(app, parsed.options, raw);
  if (auto end = ReadArguments(app, std::move(arguments), ImgtriageOptionsMarkdown)) {
    return parsed.End(*std::move(end));
  }
  if (auto error = Interpret(raw, &parsed.options)) return usage(*error);
  return parsed;
}

std::string ImgtriageOptionsMarkdown() {
  CLI::App app(kDescription, "imgtriage");
  ImgtriageOptions options;
  Raw raw;
  Declare(app, options, raw);
  return OptionsMarkdown(app, "[options] PATH...", kDescription, kFooter);
}

}  // namespace imgfsck
