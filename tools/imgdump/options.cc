// SPDX-License-Identifier: Apache-2.0
#include "tools/imgdump/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/text.h"
#include "tools/common/command_line.h"
#include "tools/common/exit_codes.h"
#include "tools/common/markdown.h"

namespace imgfsck {
namespace {

constexpr const char* kDescription =
    "Shows everything that is in a virtual-disk image, damaged or not. Never writes to it.";
constexpr const char* kFooter =
    "Exit status: 0 shown, also of a damaged image; 8 could not do it, 16 usage, 32 stopped by a "
    "signal.";

struct Raw {
  std::string mode = "table";
};

void Declare(CLI::App& app, ImgdumpOptions& o, Raw& raw) {
  app.add_option("IMAGE", o.image, "Image file or block device");
  app.add_flag("--json", o.json, "The page, or with --map the map, as JSON");
  app.add_flag("--sql", o.sql, "The whole model as an SQL script");
  app.add_option("--db", o.db, "The whole model into a new SQLite file")->type_name("FILE");
  app.add_option("--query", o.queries, "Run SQL on the live model; may be repeated")
      ->type_name("SQL")
      ->allow_extra_args(false);
  app.add_option("--mode", raw.mode, "How --query prints")->type_name("table|csv|json|jsonl");
  app.add_flag("--map", o.map, "The guest-to-host map, in qemu-img map's shape");
  app.add_flag("--chain", o.chain, "With --map: what the backing files have, too");
  app.add_option("--snapshot", o.snapshot, "With --map or --diff: that snapshot's view")
      ->type_name("NAME|ID");
  app.add_option("--hex", o.hex, "Annotated hexdump of one structure (header, l1, l2[0], ...)")
      ->type_name("STRUCTURE");
  app.add_flag("--deep", o.deep, "Findings of a deep check in the model");
  app.add_option("--threads", o.threads, "Threads (default: all cores)")->type_name("N");
  app.add_option("--format", o.format, "Take the image to be of this format")->type_name("FORMAT");
  app.add_option("--bad-map", o.bad_map, "A ddrescue map of what the medium could not read")
      ->type_name("FILE");
  app.add_option("--metadata", o.metadata,
                 "Write a copy with all metadata at its place and guest data left out")
      ->type_name("FILE");
  app.add_flag("--redact", o.redact, "With --metadata: names and paths become x");
  app.add_flag("--progress", o.progress, "Show progress even when stderr is no terminal");
  app.add_flag("--no-sandbox", o.no_sandbox,
               "Do without the system call filter that a hostile image would meet");
  app.add_option("--diff", o.diff,
                 "The guest ranges in which IMAGE differs from this image, an older one perhaps "
                 "(or the same one with --snapshot); backing files are followed")
      ->type_name("BEFORE");
  app.add_option("--diff-snapshot", o.diff_snapshot, "With --diff: that snapshot of BEFORE")
      ->type_name("NAME|ID");
  app.add_option("--diff-format", o.diff_format, "With --diff: take BEFORE to be of this format")
      ->type_name("FORMAT");
  app.add_flag("--names", o.names,
               "With --diff: name the guest's files in those ranges, as they were and as they are");
  app.set_version_flag("--version", std::string("imgdump ") + IMGFSCK_VERSION);
  app.footer(kFooter);
}

std::optional<std::string> Interpret(const Raw& raw, ImgdumpOptions* o) {
  auto mode = ParseQueryMode(raw.mode);
  if (!mode) return "--mode takes table, csv, json or jsonl";
  o->mode = *mode;
  if (o->image.empty()) return "no image given";
  int actions = o->map + o->sql + !o->db.empty() + !o->queries.empty() + !o->hex.empty() +
                !o->metadata.empty() + !o->diff.empty();
  if (actions > 1) {
    return "--map, --sql, --db, --query, --hex, --metadata and --diff exclude one another";
  }
  if (!o->snapshot.empty() && !o->map && o->diff.empty()) return "--snapshot goes with --map";
  if (!o->diff_snapshot.empty() && o->diff.empty()) return "--diff-snapshot goes with --diff";
  if (!o->diff_format.empty() && o->diff.empty()) return "--diff-format goes with --diff";
  if (o->names && o->diff.empty()) return "--names goes with --diff";
  if (!o->diff.empty() && !o->bad_map.empty()) return "--bad-map does not go with --diff";
  if (o->redact && o->metadata.empty()) return "--redact goes with --metadata";
  if (o->chain && !o->map) return "--chain goes with --map";
  if (o->chain && !o->bad_map.empty()) return "--bad-map does not go with --chain";
  return std::nullopt;
}

}  // namespace

ParsedImgdump ParseImgdump(std::vector<std::string> arguments) {
  ParsedImgdump parsed;
  auto usage = [&](const std::string& what) { return parsed.End(UsageError("imgdump", what)); };
  CLI::App app(kDescription, "imgdump");
  Raw raw;
  Declare(app, parsed.options, raw);
  if (auto end = ReadArguments(app, std::move(arguments), ImgdumpOptionsMarkdown)) {
    return parsed.End(*std::move(end));
  }
  if (auto error = Interpret(raw, &parsed.options)) return usage(*error);
  return parsed;
}

std::string ImgdumpOptionsMarkdown() {
  CLI::App app(kDescription, "imgdump");
  ImgdumpOptions options;
  Raw raw;
  Declare(app, options, raw);
  return OptionsMarkdown(app, "[options] IMAGE", kDescription, kFooter);
}

}  // namespace imgfsck
