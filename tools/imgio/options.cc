// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <span>

#include "base/text.h"
#include "tools/common/command_line.h"
#include "tools/common/exit_codes.h"
#include "tools/common/markdown.h"

namespace imgfsck {
namespace {

constexpr const char* kDescription =
    "Reads and writes virtual-disk images as a guest does: create, inspect, copy, convert.\n"
    "Sizes and offsets take K, M, G, T and 0x.";

constexpr const char* kFooter =
    "Exit status: 0 done, 1 images compared differ, 8 could not do it, 16 usage, 32 stopped by a "
    "signal.";

constexpr unsigned kMostThreads = 256;

// CLI11 takes "-1G" for an option; until it has parsed, this stands for the minus.
constexpr char kMinus = '\x01';

// Numbers as typed; turned into types afterwards.
struct Raw {
  std::string offset, length, granularity, sparse, pattern;
  std::vector<std::string> ignored;
  std::string cache = "unsafe";
  bool flag = false;
  bool json = false;
  // The action as an option, qemu-img's way.
  std::string create, apply, remove;
  bool list = false, add = false, drop = false, clear = false, enable = false, disable = false;
};

class Declaration {
 public:
  Declaration(CLI::App& app, ImgioOptions& o, Raw& raw) : app_(app), o_(o), raw_(raw) {}

  void All() {
    Create();
    Access();
    Compare();
    Convert();
    Layers();
    Snapshot();
    Bitmap();
    app_.require_subcommand(1);
    app_.set_version_flag("--version", std::string("imgio ") + IMGFSCK_VERSION);
    app_.footer(kFooter);
  }

 private:
  CLI::App* Command(const char* name, const char* words, const char* what) {
    CLI::App* c = app_.add_subcommand(name, what);
    c->add_option("WORDS", o_.words, words)->type_name(words);
    c->add_flag("-q,--quiet", o_.quiet, "Say less");
    c->add_option("--password-file", o_.password_file, "Passphrase of an encrypted image")
        ->type_name("FILE");
    c->add_option("--size-policy", o_.size_policy, "Which size a vpc image has")
        ->type_name("chs|current_size|auto");
    c->add_flag("--no-sandbox", o_.no_sandbox,
                "Do without the system call filter that a hostile image would meet");
    return c;
  }
  CLI::App* OnImage(const char* name, const char* words, const char* what) {
    CLI::App* c = Command(name, words, what);
    c->add_option("-f,--format", o_.format, "Take the image to be of this format")
        ->type_name("FORMAT");
    c->add_flag("--no-chain", o_.no_chain, "Refuse images that need a backing file");
    c->add_flag("-U,--force-share", o_.share, "Say nothing of a running program that writes to it");
    return c;
  }
  void Progress(CLI::App* c) {
    c->add_flag("-p,--progress", o_.progress, "Show progress even when stderr is no terminal");
  }
  void Output(CLI::App* c) {
    c->add_option("--output", o_.output, "Form of the result")->type_name("human|json");
    c->add_flag("--json", raw_.json, "The same as --output=json");
  }
  void Set(CLI::App* c) {
    c->add_option("-o", o_.set, "Options of the format, key=value,…")
        ->type_name("OPTIONS")
        ->allow_extra_args(false);
    c->add_flag("--force", o_.force, "Overwrite an existing file");
  }

  void Create() {
    CLI::App* c = Command("create", "FILE [SIZE]", "Make a new image");
    c->add_option("-f,--format", o_.format, "The new image's format (raw)")->type_name("FORMAT");
    c->add_option("-b", o_.backing, "Backing file")->type_name("FILE");
    c->add_option("-F", o_.backing_format, "The backing file's format")->type_name("FORMAT");
    c->add_flag("-u", o_.unsafe, "Do not look at the backing file");
    Set(c);
    c = OnImage("info", "FILE", "Say what an image is");
    Output(c);
    c = OnImage("map", "FILE", "Say where every guest range is, through all backing files");
    Output(c);
    c->add_option("-s,--start-offset", raw_.offset, "Begin here")->type_name("OFFSET");
    c->add_option("-l,--max-length", raw_.length, "So many bytes")->type_name("LENGTH");
    c->add_option("--snapshot", o_.snapshot, "A snapshot's disk")->type_name("NAME|ID");
  }
  void Access() {
    CLI::App* c = OnImage("read", "FILE OFFSET LENGTH", "Guest bytes to standard output");
    c->add_option("--to", o_.to, "Into this file instead")->type_name("FILE");
    c->add_option("--snapshot", o_.snapshot, "A snapshot's disk")->type_name("NAME|ID");
    c = OnImage("write", "FILE OFFSET", "Write guest bytes");
    c->add_option("--from", o_.from, "The bytes are in this file (-: standard input)")
        ->type_name("FILE");
    c->add_option("--pattern", raw_.pattern, "Write this byte")->type_name("BYTE");
    c->add_option("--length", raw_.length, "So many bytes")->type_name("LENGTH");
    c->add_flag("-c,--compressed", o_.compressed, "Compress them: whole clusters");
    OnImage("zero", "FILE OFFSET LENGTH", "Make a guest range read as zeros");
    OnImage("discard", "FILE OFFSET LENGTH", "Give a guest range's space back");
  }
  void Compare() {
    CLI::App* c = OnImage("compare", "FILE1 FILE2", "Compare what guests read of two images");
    c->add_option("-F", o_.second_format, "The second image's format")->type_name("FORMAT");
    c->add_flag("-s", o_.strict, "Sizes must be the same, too");
    c->add_option("-m,--threads", o_.threads, "Threads (default: all cores)")->type_name("N");
    Progress(c);
  }
  void Convert() {
    CLI::App* c = OnImage("convert", "FILE NEW", "Copy a disk into a new image");
    c->add_option("-O", o_.second_format, "The new image's format (raw)")->type_name("FORMAT");
    c->add_option("-l,--snapshot", o_.snapshot, "Of this snapshot")->type_name("NAME|ID");
    c->add_flag("-c,--compressed", o_.compressed, "Compress the new image");
    c->add_option("-B", o_.backing,
                  "The new image's backing file: only what differs from it is written")
        ->type_name("FILE");
    c->add_option("-F", o_.backing_format, "The backing file's format")->type_name("FORMAT");
    c->add_flag("-n", o_.existing, "The new image exists: write into it");
    c->add_option("-S", raw_.sparse, "Zeros of so many bytes become holes; 0: none do")
        ->type_name("SIZE");
    c->add_option("-m,--threads", o_.threads, "Threads (default: all cores)")->type_name("N");
    c->add_flag("-W", raw_.flag, "Accepted for qemu-img's sake");
    c->add_option(
         "-t", raw_.cache,
         "unsafe (the default): end when the new file is complete; writeback: when it is on "
         "the disk")
        ->type_name("CACHE");
    c->add_flag("--salvage", o_.salvage,
                "Go on past damage: zeros for what cannot be read, each guest range listed");
    c->add_option("--lost-map", o_.lost_map, "With --salvage: the list as a GNU ddrescue mapfile")
        ->type_name("FILE");
    Set(c);
    Progress(c);
  }
  void Layers() {
    CLI::App* c = OnImage("resize", "FILE [+-]SIZE", "Change the disk's size");
    c->add_flag("--shrink", o_.shrink, "Cutting off the end is meant");
    c = OnImage("commit", "FILE", "Write what an image has into its backing file");
    c->add_flag("-d", o_.keep, "Leave the image as it is afterwards");
    Progress(c);
    c = OnImage("rebase", "FILE", "Change an image's backing file");
    c->add_option("-b", o_.backing, "The new backing file; empty: none")
        ->required()
        ->type_name("FILE");
    c->add_option("-F", o_.backing_format, "Its format")->type_name("FORMAT");
    c->add_flag("-u", o_.unsafe, "Only change the name");
    Progress(c);
  }
  void Snapshot() {
    CLI::App* c =
        OnImage("snapshot", "[list|create|apply|delete] FILE [NAME|ID]", "Internal snapshots");
    c->add_flag("-l", raw_.list, "List");
    c->add_option("-c", raw_.create, "Create")->type_name("NAME");
    c->add_option("-a", raw_.apply, "Apply")->type_name("NAME|ID");
    c->add_option("-d", raw_.remove, "Delete")->type_name("NAME|ID");
    Output(c);
  }
  void Bitmap() {
    CLI::App* c =
        OnImage("bitmap", "[list|dump|add|remove|clear|enable|disable|merge] FILE [NAME [SOURCE]]",
                "Persistent dirty bitmaps");
    c->add_flag("--add", raw_.add, "Add");
    c->add_flag("--remove", raw_.drop, "Remove");
    c->add_flag("--clear", raw_.clear, "Clear");
    c->add_flag("--enable", raw_.enable, "Enable");
    c->add_flag("--disable", raw_.disable, "Disable; with add: make it disabled");
    c->add_option("--merge", o_.merge_source, "Merge this one in")->type_name("SOURCE");
    c->add_option("-g,--granularity", raw_.granularity, "Guest bytes a bit")->type_name("SIZE");
    Output(c);
  }

  CLI::App& app_;
  ImgioOptions& o_;
  Raw& raw_;
};

// Turns options into an action word, as if it had been typed.
void PutAction(const Raw& raw, ImgioOptions* o) {
  auto first = [&](const char* action) { o->words.insert(o->words.begin(), action); };
  auto named = [&](const char* action, const std::string& name) {
    if (name.empty()) return;
    first(action);
    o->words.push_back(name);
  };
  if (o->command == "snapshot") {
    if (raw.list) first("list");
    named("create", raw.create);
    named("apply", raw.apply);
    named("delete", raw.remove);
  } else if (o->command == "bitmap") {
    o->disabled = raw.disable;
    if (raw.add) first("add");
    if (raw.drop) first("remove");
    if (raw.clear) first("clear");
    if (raw.enable) first("enable");
    if (raw.disable && !raw.add && (o->words.empty() || o->words[0] != "add")) first("disable");
    if (!o->merge_source.empty()) named("merge", o->merge_source);
  }
}

std::optional<std::string> ReadNumbers(const Raw& raw, ImgioOptions* o) {
  std::optional<std::string> wrong;
  auto size = [&](const std::string& text, std::optional<uint64_t>* value) {
    if (text.empty()) return;
    *value = ParseSize(text);
    if (!*value) wrong = fmt::format("'{}' is no size", text);
  };
  size(raw.offset, &o->offset);
  size(raw.length, &o->length);
  size(raw.granularity, &o->granularity);
  size(raw.sparse, &o->sparse);
  std::optional<uint64_t> pattern;
  size(raw.pattern, &pattern);
  if (pattern && *pattern > 255) wrong = "--pattern takes a byte, 0 to 255";
  if (pattern) o->pattern = static_cast<uint8_t>(*pattern);
  static constexpr std::string_view kCaches[] = {"unsafe", "writeback", "writethrough", "none",
                                                 "directsync"};
  if (std::ranges::find(kCaches, raw.cache) == std::end(kCaches)) {
    wrong = "-t takes unsafe, writeback, writethrough, none or directsync";
  }
  o->durable = raw.cache != "unsafe";
  if (o->threads > kMostThreads) wrong = fmt::format("-m takes at most {}", kMostThreads);
  if (raw.json) o->output = "json";
  if (o->output != "json" && o->output != "human") wrong = "--output takes human or json";
  if (o->size_policy != "auto" && o->size_policy != "chs" && o->size_policy != "current_size") {
    wrong = "--size-policy takes chs, current_size or auto";
  }
  return wrong;
}

// How many words a command takes, and from which on they are sizes.
struct Shape {
  std::string_view command;
  size_t least, most, sizes_from;
};
constexpr Shape kShapes[] = {
    {"create", 1, 2, 1},  {"info", 1, 1, 9},   {"map", 1, 1, 9},     {"read", 3, 3, 1},
    {"write", 2, 2, 1},   {"zero", 3, 3, 1},   {"discard", 3, 3, 1}, {"compare", 2, 2, 9},
    {"convert", 2, 2, 9}, {"resize", 2, 2, 1}, {"commit", 1, 1, 9},  {"rebase", 1, 1, 9},
    {"list", 1, 1, 9},    {"apply", 2, 2, 9},  {"delete", 2, 2, 9},  {"dump", 2, 2, 9},
    {"add", 2, 2, 9},     {"remove", 2, 2, 9}, {"clear", 2, 2, 9},   {"enable", 2, 2, 9},
    {"disable", 2, 2, 9}, {"merge", 3, 3, 9},
};
constexpr Shape kNewSnapshot{"create", 2, 2, 9};

// Snapshot and bitmap: the first word is what to do; a file alone is listed.
std::optional<std::string> TakeAction(ImgioOptions* o) {
  static constexpr std::string_view kSnapshot[] = {"list", "create", "apply", "delete"};
  static constexpr std::string_view kBitmap[] = {"list",  "dump",   "add",     "remove",
                                                 "clear", "enable", "disable", "merge"};
  std::span<const std::string_view> actions;
  if (o->command == "snapshot") actions = kSnapshot;
  if (o->command == "bitmap") actions = kBitmap;
  if (actions.empty()) return std::nullopt;
  bool known = !o->words.empty() && std::ranges::find(actions, o->words[0]) != actions.end();
  if (known && (o->words.size() > 1 || o->words[0] != "list")) {
    o->action = o->words[0];
    o->words.erase(o->words.begin());
  } else if (o->words.size() == 1) {
    o->action = "list";
  } else {
    return fmt::format("{}: say what to do", o->command);
  }
  return std::nullopt;
}

std::optional<std::string> InterpretWords(ImgioOptions* o) {
  if (auto wrong = TakeAction(o)) return wrong;
  const std::string& name = o->action.empty() ? o->command : o->action;
  const Shape* shape =
      o->action == "create" ? &kNewSnapshot : std::ranges::find(kShapes, name, &Shape::command);
  if (o->words.size() < shape->least || o->words.size() > shape->most) {
    return fmt::format("{}: {} arguments are too {}", name, o->words.size(),
                       o->words.size() < shape->least ? "few" : "many");
  }
  for (size_t i = shape->sizes_from; i < o->words.size(); ++i) {
    std::string_view text = o->words[i];
    if (o->command == "resize" && (text[0] == '+' || text[0] == '-')) {
      o->sign = text[0];
      text.remove_prefix(1);
    }
    auto size = ParseSize(text);
    if (!size) return fmt::format("'{}' is no size", o->words[i]);
    o->sizes.push_back(*size);
  }
  o->words.resize(std::min(o->words.size(), shape->sizes_from));
  bool source = !o->from.empty(), pattern = o->pattern && o->length;
  if (o->command == "write" && source == pattern) {
    return "write takes --from, or --pattern with --length";
  }
  if (!o->lost_map.empty() && !o->salvage) return "--lost-map goes with --salvage";
  if (o->existing && !o->backing.empty())
    return "-B goes with a new image, -n with one that exists";
  return std::nullopt;
}

void HideMinus(std::vector<std::string>* arguments) {
  for (std::string& a : *arguments) {
    if (a.size() > 1 && a[0] == '-' && a[1] >= '0' && a[1] <= '9') a[0] = kMinus;
  }
}

}  // namespace

ParsedImgio ParseImgio(std::vector<std::string> arguments) {
  ParsedImgio parsed;
  auto usage = [&](const std::string& what) { return parsed.End(UsageError("imgio", what)); };
  CLI::App app(kDescription, "imgio");
  Raw raw;
  Declaration(app, parsed.options, raw).All();
  HideMinus(&arguments);
  auto markdown = [&] {
    return OptionsMarkdown(app, "COMMAND [options] ...", kDescription, kFooter);
  };
  // No backing file; nothing special.
  if (auto end = ReadArguments(app, std::move(arguments), markdown, {"-b", "-o"})) {
    return parsed.End(*std::move(end));
  }
  ImgioOptions& o = parsed.options;
  o.command = app.get_subcommands().front()->get_name();
  for (std::string& word : o.words) {
    if (word.starts_with(kMinus)) word[0] = '-';
  }
  PutAction(raw, &o);
  if (auto wrong = ReadNumbers(raw, &o)) return usage(*wrong);
  if (auto wrong = InterpretWords(&o)) return usage(*wrong);
  return parsed;
}

}  // namespace imgfsck
