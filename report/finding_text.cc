// SPDX-License-Identifier: Apache-2.0
#include "report/finding_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "base/text.h"

namespace imgfsck {
namespace {

// What all findings of one block have in common.
using Kind = std::tuple<bool, int, Problem, RepairClass, Effect>;  // fixed, -severity, …

Kind KindOf(const Finding& finding) {
  return {finding.fixed, -static_cast<int>(finding.severity_or_default()), finding.problem,
          finding.repair_or_default(), finding.effect_or_default()};
}

// Without -v: of each kind of finding so many are listed, and details are cut.
constexpr size_t kMostPlaces = 20, kLongestDetail = 300;
constexpr size_t kMostNames = 5;  // of a place

// In the order of the first finding of each: what is left before what is mended, the worst first.
struct Block {
  std::vector<const Finding*> findings;
  uint64_t units = 0;
};

std::string Heading(const Finding& first, bool colour) {
  const Severity severity = first.severity_or_default();
  std::string word(ToText(severity));
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (first.fixed) word = "MENDED " + word;
  if (colour) {
    const char* code = first.fixed                         ? "32"
                       : severity == Severity::kCorruption ? "1;31"
                       : severity == Severity::kInfo       ? "36"
                                                           : "1;33";
    word = fmt::format("\x1b[{}m{}\x1b[0m", code, word);
  }
  return fmt::format("{}: {} ({})", word, first.info().what, first.info().code);
}

std::string_view EffectSentence(const Finding& finding) {
  const bool there = finding.guest.has_value();  // else nobody knows where, or it is everywhere
  switch (finding.effect_or_default()) {
    case Effect::kWrong:
      return there ? "the guest may read wrong data there" : "the guest may read wrong data";
    case Effect::kStale:
      return "the guest reads older data there";
    case Effect::kZero:
      return there ? "the guest reads zeros there" : "the guest reads zeros where the data belongs";
    case Effect::kUnreadable:
      return there ? "the guest cannot read there, or the image does not open"
                   : "the image does not open, or part of it cannot be read";
    case Effect::kNone:
      return "none: the guest's data is not affected";
  }
  return "";
}

std::string RepairSentence(const Finding& finding) {
  const ProblemInfo& info = finding.info();
  switch (finding.repair_or_default()) {
    case RepairClass::kSafe:
      return fmt::format("safe (--repair): {}; costs {}", info.mend, info.cost);
    case RepairClass::kAll:
      return fmt::format("only by --repair=all: {}; can cost: {}", info.mend, info.cost);
    case RepairClass::kNone:
      break;
  }
  return info.repair == RepairClass::kNone ? std::string(info.mend) : "nothing in this case";
}

class FindingsText {
 public:
  FindingsText(const LayerNames& names, const ReportOptions& options, TextWriter& out)
      : names_(names), options_(options), out_(out) {}

  void PutBlock(const Block& block, size_t places) {
    const Finding& first = *block.findings.front();
    out_.Put('\n');
    out_.Put(Heading(first, options_.colour));
    if (block.units > 1) out_.Put(fmt::format(", {} times", block.units));
    out_.Put('\n');
    for (size_t i = 0; i < places; ++i) PutPlace(*block.findings[i]);
    if (places > 0 && places < block.findings.size()) {
      out_.Put(fmt::format("  at: {} not listed here{}\n",
                           Plural(block.findings.size() - places, "more place", "more places"),
                           options_.verbosity < 1 ? " (-v lists them)" : ""));
    }
    if (first.severity_or_default() == Severity::kInfo && options_.verbosity < 1) return;
    PutLine(first.fixed ? "guest, before: " : "guest: ", EffectSentence(first));
    if (!first.fixed) PutLine("repair: ", RepairSentence(first));
  }

 private:
  void PutLine(std::string_view label, std::string_view text) {
    out_.Put("  ");
    out_.Put(label);
    out_.Put(text);
    out_.Put('\n');
  }

  void PutPlace(const Finding& finding) {
    std::string line = PrintableStart(finding.structure);
    auto add = [&](const std::string& part) {
      if (!line.empty()) line += ", ";
      line += part;
    };
    if (finding.host) add("file " + RangeText(finding.host->offset.value, finding.host->length));
    if (finding.guest) {
      add(names_.GuestText(*finding.guest, finding.layer));
    } else if (!finding.layer.empty()) {
      add("of " + names_.Of(finding.layer));
    }
    if (finding.count > 1) add(Plural(finding.count, "time", "times"));
    if (!finding.detail.empty()) line += ": " + PrintableStart(finding.detail, kLongestDetail);
    if (!line.empty()) PutLine("at: ", line);
    for (const Claimant& other : finding.also) PutClaimant(other);
    if (options_.names != nullptr) {
      const size_t most = options_.verbosity < 1 ? kMostNames : SIZE_MAX;
      for (const NameLine& named : LinesFor(*options_.names, finding, most)) {
        PutLine(named.label, named.text);
      }
    }
    if (options_.verbosity > 0 && !finding.evidence.empty()) {
      PutLine("  why: ", fmt::format("{} (confidence {:.0f} %)", Printable(finding.evidence),
                                     finding.confidence * 100));
    }
  }

  void PutClaimant(const Claimant& other) {
    std::string text = Printable(other.structure);
    if (other.guest) {
      text += (text.empty() ? "" : ", ") + names_.GuestText(*other.guest, other.layer);
    } else if (!other.layer.empty()) {
      text += (text.empty() ? "" : ", ") + names_.Of(other.layer);
    }
    PutLine("  also claimed by: ", text);
  }

  const LayerNames& names_;
  const ReportOptions& options_;
  TextWriter& out_;
};

// How many findings of a problem and severity there are beyond those kept.
void PutUnkept(const Findings& left, TextWriter& out) {
  for (const auto& [problem, total] : left.totals()) {
    if (total.dropped == 0) continue;
    out.Put(fmt::format("\n{}: {} in all, {} not kept here\n", InfoOf(problem).code,
                        Plural(total.units, "case", "cases"),
                        Plural(total.dropped, "place", "places")));
  }
}

}  // namespace

void WriteFindingsText(const std::vector<Finding>& findings, const Findings& left,
                       const LayerNames& names, const ReportOptions& options, TextWriter& out) {
  std::map<Kind, size_t> index;
  std::vector<Block> blocks;
  for (const Finding& finding : findings) {
    auto [at, is_new] = index.emplace(KindOf(finding), blocks.size());
    if (is_new) blocks.emplace_back();
    Block& block = blocks[at->second];
    block.findings.push_back(&finding);
    block.units += finding.count;
  }
  FindingsText text(names, options, out);
  size_t room = options.max_findings;
  for (const Block& block : blocks) {
    const bool brief =
        options.verbosity < 1 && block.findings.front()->severity_or_default() == Severity::kInfo;
    const size_t most = brief ? 0 : options.verbosity < 1 ? kMostPlaces : SIZE_MAX;
    const size_t places = std::min({room, most, block.findings.size()});
    text.PutBlock(block, places);
    room -= places;
  }
  PutUnkept(left, out);
}

}  // namespace imgfsck
