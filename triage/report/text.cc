// SPDX-License-Identifier: Apache-2.0
#include "triage/report/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "report/guest_names.h"
#include "report/words.h"
#include "triage/attention.h"

namespace imgfsck {
namespace {

constexpr size_t kMostChainLines = 1000;
constexpr size_t kMostFirst = 10;  // in the list of what to look at first
constexpr size_t kMostLines = 6;   // of reasons, and of findings, of one image

struct Heading {
  std::string_view word, colour;
};
constexpr std::array<Heading, 5> kHeadings = {{{"UNSAFE", "\x1b[31m"},
                                               {"UNDECIDABLE", "\x1b[35m"},
                                               {"DAMAGED", "\x1b[33m"},
                                               {"SOUND", "\x1b[32m"},
                                               {"NO IMAGE", ""}}};
constexpr Heading kUnchecked = {"UNCHECKED", "\x1b[36m"};  // nothing against it, little known

class TriageText {
 public:
  TriageText(const TriageResult& result, const TriageTextOptions& options, TextWriter& out)
      : result_(result), options_(options), out_(out) {}

  void Write() {
    const std::vector<size_t> order = OrderOfAttention(result_);
    for (size_t i : order) {
      const TriagedFile& file = result_.files[i];
      const Attention attention = AttentionFor(result_, i);
      ++counts_[static_cast<size_t>(attention)];
      if (attention == Attention::kNotAnImage) {
        others_ += 1;
        if (options_.verbosity >= 0) PutOther(file);
      } else if (attention != Attention::kSound || options_.verbosity >= 0) {
        PutImage(i, attention);
      }
    }
    for (const PathError& error : result_.errors) {
      Line(fmt::format("NOT READ  {}: {}", Printable(error.path), Printable(error.error.message)));
    }
    if (options_.verbosity >= 0) PutChains();
    PutFirst(order);
    PutSummary();
  }

 private:
  void Line(std::string_view text) {
    out_.Put(text);
    out_.Put('\n');
  }

  void PutHeading(const Heading& heading, std::string_view rest) {
    if (options_.colour) out_.Put(heading.colour);
    out_.Put(heading.word);
    if (options_.colour) out_.Put("\x1b[0m");
    Line(fmt::format("  {}", rest));
  }

  void PutOther(const TriagedFile& file) {
    const IdentityFacts& id = file.facts.identity;
    std::string text = Printable(file.file.path);
    if (!id.trouble.empty()) text += ": " + Printable(id.trouble);
    PutHeading(kHeadings.back(), text);
  }

  void PutImage(size_t index, Attention attention) {
    const TriagedFile& file = result_.files[index];
    const IdentityFacts& id = file.facts.identity;
    std::string what = "not identified";
    if (!id.format.empty()) {
      what = Printable(id.format);
      if (!id.version.empty()) what += fmt::format(" ({})", Printable(id.version));
      if (id.examined) what += fmt::format(", disk of {}", HumanSize(id.virtual_size));
      what += fmt::format(", file of {}", HumanSize(id.file_size));
    }
    const bool unchecked = attention == Attention::kSound && !id.examined;
    PutHeading(unchecked ? kUnchecked : kHeadings[static_cast<size_t>(attention)],
               fmt::format("{}: {}", Printable(file.file.path), what));
    for (const std::string& name : file.file.also) Line("    also named " + Printable(name));
    PutHash("file", file.facts.container);
    PutHash("disk", file.facts.content);
    if (file.untouched) Line(*file.untouched ? "    untouched" : "    CHANGED while examined");
    for (size_t e : result_.chain.edges_of[index]) PutLink(result_.chain.edges[e]);
    PutReasons(file.facts);
    PutFindings(file.facts.check);
    PutInside(file.facts);
  }

  void PutHash(std::string_view what, const HashFacts& hash) {
    for (const auto& [name, digest] : hash.digests) {
      Line(fmt::format("    {} of the {}: {}", name, what, digest));
    }
    if (!hash.trouble.empty()) {
      Line(fmt::format("    {} of the {}: {}", hash.done ? "not all hashes" : "no hash", what,
                       Printable(hash.trouble)));
    }
  }

  void PutLink(const ChainEdge& edge) {
    std::string line = fmt::format("    {}: {}", edge.kind, Printable(edge.names.front()));
    if (edge.parent) {
      line += " = " + Printable(result_.files[*edge.parent].file.path);
    } else {
      line += fmt::format(" ({})", ToText(edge.state));
    }
    for (LinkTrouble trouble : edge.troubles) line += fmt::format(", {}", ToText(trouble));
    Line(line);
  }

  // Every file that others build on, with those under it; a file under two stands twice.
  void PutChains() {
    const ChainGraph& chain = result_.chain;
    bool headed = false;
    for (size_t root = 0; root < result_.files.size(); ++root) {
      if (chain.children[root].empty() || !IsRoot(root)) continue;
      if (!headed) Line("chains:");
      headed = true;
      std::vector<std::pair<size_t, size_t>> pending = {{root, 1}};  // file, depth
      for (size_t lines = 0; !pending.empty() && lines < kMostChainLines; ++lines) {
        const auto [file, depth] = pending.back();
        pending.pop_back();
        Line(std::string(2 * depth, ' ') + Printable(result_.files[file].file.path));
        for (auto child = chain.children[file].rbegin(); child != chain.children[file].rend();
             ++child) {
          pending.emplace_back(*child, depth + 1);
        }
      }
      if (!pending.empty()) Line("  …");
    }
  }
  bool IsRoot(size_t file) const {
    return std::ranges::none_of(result_.chain.edges_of[file], [&](size_t e) {
      return result_.chain.edges[e].parent.has_value();
    });
  }

  void PutReasons(const ImageFacts& facts) {
    size_t shown = 0, left = 0;
    for (const Reason& reason : facts.reasons) {
      const bool note = WeightOf(reason.code, result_.policy) == Weight::kNote;
      if (note && options_.verbosity < 1) continue;
      if (shown == kMostLines && options_.verbosity < 1) {
        ++left;
        continue;
      }
      ++shown;
      const ReasonInfo& info = InfoOf(reason.code);
      std::string line = fmt::format("    {}{}: {}", note ? "note: " : "", info.name, info.what);
      if (!reason.detail.empty()) line += ": " + Printable(reason.detail);
      if (reason.length > 0)
        line += fmt::format(" [at {}]", RangeText(reason.offset, reason.length));
      Line(line);
    }
    if (left > 0) Line(fmt::format("    … and {}", Plural(left, "reason more", "reasons more")));
  }

  // The kinds of findings, the worst first; infos only when asked for.
  void PutFindings(const CheckFacts& check) {
    if (!check.trouble.empty()) Line("    not checked: " + Printable(check.trouble));
    const Severity least = options_.verbosity > 0 ? Severity::kInfo : Severity::kWarning;
    std::vector<std::string> seen;
    size_t left = 0;
    for (const Finding& finding : check.findings) {
      const std::string code(finding.info().code);
      if (finding.severity_or_default() < least || std::ranges::count(seen, code) > 0) continue;
      seen.push_back(code);
      if (seen.size() > kMostLines && options_.verbosity < 1) {
        ++left;
        continue;
      }
      const auto total = std::ranges::find(check.totals, code, &ProblemTotal::code);
      const uint64_t units = total == check.totals.end() ? finding.count : total->units;
      Line(fmt::format("    {}: {} × {}: {}", ToText(finding.severity_or_default()), units, code,
                       finding.info().what));
    }
    if (left > 0) Line(fmt::format("    … and {}", Plural(left, "kind more", "kinds more")));
  }

  void PutInside(const ImageFacts& facts) {
    const RemnantFacts& remnants = facts.remnants;
    if (remnants.bytes > 0) {
      Line(fmt::format("    unclaimed: {} in {}", HumanSize(remnants.bytes),
                       Plural(remnants.count, "place", "places")));
    }
    const EntropyFacts& e = facts.entropy;
    if (!e.trouble.empty()) Line("    no profile of its entropy: " + e.trouble);
    if (e.plan_repeats > 0) {
      Line(fmt::format("    looks encrypted by a plan: {}, then {} not, {} times, from {} on",
                       HumanSize(e.plan_on), HumanSize(e.plan_off), e.plan_repeats,
                       Hex(e.plan_begin)));
    } else if (e.head > 0 || e.tail > 0) {
      Line(fmt::format("    looks encrypted: the first {}, the last {}", HumanSize(e.head),
                       HumanSize(e.tail)));
    }
    PutNames(facts.names);
    for (const RuleFacts& rule : facts.rules) {
      if (!rule.trouble.empty()) {
        Line(fmt::format("    rule {} failed: {}", Printable(rule.rule), Printable(rule.trouble)));
      }
      for (size_t i = 0; i < std::min(rule.hits.size(), kMostLines); ++i) {
        Line(fmt::format("    {}: rule {}: {}", rule.hits[i].severity, Printable(rule.rule),
                         Printable(rule.hits[i].message)));
      }
    }
  }

  // Every file once, whatever of it is concerned.
  void PutNames(const NameFacts& names) {
    if (!names.trouble.empty()) Line("    no names: " + Printable(names.trouble));
    std::vector<std::string> seen;
    size_t left = 0;
    for (const GuestVolume& volume : names.volumes) {
      if (volume.trouble.empty()) continue;
      Line(fmt::format("    no names of the guest's files at {}: {}{}", Hex(volume.offset),
                       volume.type.empty() ? "" : Printable(volume.type) + ": ",
                       Printable(volume.trouble)));
    }
    for (const NameHit& hit : names.hits) {
      if (hit.path.empty() || std::ranges::count(seen, hit.path) > 0) continue;
      if (seen.size() == kMostLines && options_.verbosity < 1) {
        ++left;
        break;
      }
      seen.push_back(hit.path);
      Line(fmt::format("    concerns {} of the guest ({})", Printable(hit.path), ToText(hit.kind)));
    }
    if (left > 0) Line("    … and further files");
    if (names.more) Line("    more places have names than are listed");
    for (const RangeSetNames& set : names.sets) {
      const std::string head = fmt::format("    bitmap \"{}\"", Printable(set.what));
      if (!set.trouble.empty()) {
        Line(fmt::format("{}: what changed is not known: {}", head, Printable(set.trouble)));
        continue;
      }
      Line(fmt::format("{}: {} changed since it began", head, HumanSize(set.bytes)));
      for (size_t i = 0; i < set.shares.size(); ++i) {
        if (i == kMostLines && options_.verbosity < 1) {
          Line("      … and further files");
          break;
        }
        const NamedShare& share = set.shares[i];
        if (share.path.empty()) continue;
        Line(fmt::format("      {} of {} of the guest", HumanSize(share.bytes),
                         PathText(names, share.volume, share.path)));
      }
    }
  }

  // The end of a long report is what people see.
  void PutFirst(const std::vector<size_t>& order) {
    const uint64_t attended = counts_[0] + counts_[1] + counts_[2];
    if (attended < 2) return;
    Line("look first at:");
    const size_t shown = std::min<uint64_t>(attended, kMostFirst);
    for (size_t rank = 0; rank < shown; ++rank) {
      const size_t i = order[rank];
      Line(fmt::format("  {}. {}: {}: {}", rank + 1, Printable(result_.files[i].file.path),
                       ToText(AttentionFor(result_, i)), WhyLookAt(result_, i)));
    }
    if (attended > shown) Line(fmt::format("  … and {} more", attended - shown));
  }

  void PutSummary() {
    const uint64_t images = counts_[0] + counts_[1] + counts_[2] + counts_[3];
    Line(fmt::format("{} in {}: {} ({} unsafe, {} undecidable, {} damaged, {} sound), {}",
                     Plural(result_.files.size(), "file", "files"),
                     Plural(result_.directories, "folder", "folders"),
                     Plural(images, "image", "images"), counts_[0], counts_[1], counts_[2],
                     counts_[3], Plural(others_, "other file", "other files")));
    if (result_.symlinks + result_.specials > 0) {
      Line(fmt::format("left alone: {}, {}",
                       Plural(result_.symlinks, "symbolic link", "symbolic links"),
                       Plural(result_.specials, "special file", "special files")));
    }
    Line(fmt::format("policy: {}", ToText(result_.policy)));
  }

  const TriageResult& result_;
  const TriageTextOptions& options_;
  TextWriter& out_;
  std::array<uint64_t, 5> counts_{};
  uint64_t others_ = 0;
};

}  // namespace

void WriteTriageText(const TriageResult& result, const TriageTextOptions& options,
                     TextWriter& out) {
  TriageText(result, options, out).Write();
}

}  // namespace imgfsck
