// SPDX-License-Identifier: Apache-2.0
// The page: what the image is, notes, findings, what a repair did, and the verdict as the last
// lines, because that is what stays on the screen.
#include "report/text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "report/finding_text.h"
#include "report/words.h"

namespace imgfsck {
namespace {

constexpr size_t kTextMostNames = 5;  // of a lost range
constexpr size_t kMostRanges = 20;    // lost ranges listed, unless asked for more detail

struct Counts {
  uint64_t corruptions = 0, leaks = 0, warnings = 0, infos = 0;
  uint64_t problems() const { return corruptions + leaks + warnings; }
};

Counts CountsOf(const Findings& findings) {
  return {findings.Units(Severity::kCorruption), findings.Units(Severity::kLeak),
          findings.Units(Severity::kWarning), findings.Units(Severity::kInfo)};
}

std::string CountsText(const Counts& counts) {
  std::string text;
  auto add = [&](uint64_t count, std::string_view one, std::string_view many) {
    if (count == 0) return;
    if (!text.empty()) text += ", ";
    text += Plural(count, one, many);
  };
  add(counts.corruptions, "corruption", "corruptions");
  add(counts.leaks, "leak", "leaks");
  add(counts.warnings, "warning", "warnings");
  return text;
}

// Which repair modes could still do something about what is left.
struct Remedies {
  uint64_t safe = 0, all = 0, none = 0;
};

Remedies RemediesFor(const std::vector<Finding>& findings) {
  Remedies remedies;
  for (const Finding& finding : findings) {
    if (finding.fixed || finding.severity_or_default() == Severity::kInfo) continue;
    switch (finding.repair_or_default()) {
      case RepairClass::kSafe:
        remedies.safe += finding.count;
        break;
      case RepairClass::kAll:
        remedies.all += finding.count;
        break;
      case RepairClass::kNone:
        remedies.none += finding.count;
        break;
    }
  }
  return remedies;
}

std::string_view LostLabel(const LostRange& range, bool dry_run) {
  if (range.by_repair) return dry_run ? "would be lost" : "lost";
  switch (range.effect) {
    case Effect::kZero:
      return dry_run ? "would still read as zeros" : "still reads as zeros";
    case Effect::kStale:
      return dry_run ? "would still read as older data" : "still reads as older data";
    case Effect::kWrong:
      return dry_run ? "might still read as data of another place"
                     : "may still read as data of another place";
    case Effect::kUnreadable:
      return dry_run ? "would still be unreadable" : "still cannot be read";
    case Effect::kNone:
      break;
  }
  return "lost";
}

// Something is claimed twice while something else has lost its owner: the one may be the mapping of
// the other. A safe repair settles the first by a copy, and then nobody can tell any more.
bool SharesWhileOwnersAreMissing(const Findings& findings) {
  auto any = [&](std::initializer_list<Problem> problems) {
    return std::any_of(problems.begin(), problems.end(),
                       [&](Problem problem) { return findings.Has(problem); });
  };
  return (any({Problem::kQcow2L2DataCrosslink, Problem::kQcow2L2DataOnMetadata,
               Problem::kQcow2L1EntryDuplicate}) &&
          any({Problem::kQcow2RefcountLeak, Problem::kQcow2L2Orphan})) ||
         (any({Problem::kVhdBatEntryDuplicate, Problem::kVhdBatEntryOverlap}) &&
          findings.Has(Problem::kVhdBatLeakedSpace));
}

class ImageText {
 public:
  ImageText(const ImageResult& result, const ReportOptions& options, TextWriter& out)
      : result_(result),
        options_(options),
        out_(out),
        check_(FinalCheck(result)),
        names_(check_ != nullptr ? check_->rows : nullptr) {}

  void Write() {
    if (options_.verbosity >= 0) {
      PutHeadline();
      for (const std::string& note : result_.notes) PutLine("note: " + Printable(note));
    }
    std::vector<Finding> findings = FindingsToList(result_);
    if (options_.verbosity >= 0 && check_ != nullptr) {
      WriteFindingsText(findings, *check_->findings, names_, options_, out_);
      if (!findings.empty()) out_.Put('\n');
      if (options_.names != nullptr) {
        WriteNamesText(*options_.names, options_.verbosity > 0 ? SIZE_MAX : kMostRanges, out_);
      }
    }
    if (result_.repair) PutRepair(*result_.repair);
    PutVerdict(RemediesFor(findings));
    if (result_.repair && !result_.repair->plan_file.empty()) {
      PutLine(fmt::format("  the plan: {0}; to carry it out: imgfsck --apply {0} -- {1}",
                          ShellQuoted(result_.repair->plan_file), ShellQuoted(result_.path)));
    }
  }

 private:
  void PutLine(const std::string& line) {
    out_.Put(line);
    out_.Put('\n');
  }
  void PutVerdictLine(const std::string& text) {
    PutLine(fmt::format("{}: {}", Printable(result_.path), text));
  }

  void PutHeadline() {
    if (check_ == nullptr) return;
    std::string line = fmt::format("{}: {}", Printable(result_.path), check_->format);
    if (!check_->version.empty()) line += " (" + Printable(check_->version) + ")";
    line += fmt::format(", disk of {}, file of {}", HumanSize(check_->virtual_size),
                        HumanSize(check_->file_size));
    PutLine(line);
    if (options_.verbosity < 1) return;
    PutLine(fmt::format(
        "  {} of {} clusters of {} allocated, {} fragmented, {} compressed, "
        "ends at {:#x}",
        check_->allocated_clusters, check_->total_clusters, HumanSize(check_->cluster_size),
        check_->fragmented_clusters, check_->compressed_clusters, check_->image_end_offset));
  }

  void PutRepair(const RepairSummary& repair) {
    for (const std::string& done : repair.done) {
      PutLine((repair.dry_run ? "would do: " : "done: ") + Printable(done));
    }
    for (const std::string& refused : repair.refused) PutLine("not done: " + Printable(refused));
    PutOrphans(repair.orphans);
    if (repair.patches > 0) PutLost(repair);
  }

  void PutLost(const RepairSummary& repair) {
    const size_t most = options_.verbosity > 0 ? SIZE_MAX : kMostRanges;
    for (size_t i = 0; i < repair.lost.size() && i < most; ++i) {
      const LostRange& range = repair.lost[i];
      PutLine(fmt::format("{}: {}", LostLabel(range, repair.dry_run),
                          names_.GuestText(range.guest, range.layer)));
      PutNamesOf(range);
    }
    if (repair.lost.size() > most) {
      PutLine(fmt::format("lost: {} (--lost-map FILE lists them)",
                          Plural(repair.lost.size() - most, "more range", "more ranges")));
    }
  }

  void PutNamesOf(const LostRange& range) {
    const NameFacts* facts = options_.names == nullptr ? nullptr : options_.names->Of(range.layer);
    if (facts == nullptr) return;
    for (const std::string& text : NameTexts(*facts, range.guest, kTextMostNames)) {
      PutLine("  in: " + text);
    }
  }

  void PutOrphans(const OrphanSummary& orphans) {
    if (orphans.kept + orphans.relinked + orphans.freed == 0) return;
    std::string line = fmt::format("clusters nobody referred to: {} kept", orphans.kept);
    if (!orphans.where.empty()) line += " in " + Printable(orphans.where);
    PutLine(fmt::format("{}, {} linked in again, {} given back", line, orphans.relinked,
                        orphans.freed));
  }

  void PutVerdict(const Remedies& remedies) {
    if (result_.error) {
      std::string text = "FAILED: " + Printable(result_.error->message);
      if (result_.error->offset) text += fmt::format(" (at {:#x})", *result_.error->offset);
      if (result_.before && !result_.repair) text += "; the image was not changed";
      return PutVerdictLine(text);
    }
    if (check_ == nullptr) return PutVerdictLine("FAILED: not checked");
    const Counts left = CountsOf(*check_->findings);
    if (result_.repair) {
      PutRepairVerdict(*result_.repair, left);
    } else if (left.problems() == 0) {
      if (options_.verbosity >= 0) PutVerdictLine("OK, nothing is wrong");
      return;
    } else {
      PutVerdictLine(StateWord(left) + CountsText(left) + ". Nothing was changed.");
    }
    PutAdvice(left, remedies);
  }

  static std::string StateWord(const Counts& left) {
    if (left.corruptions > 0) return "DAMAGED: ";
    // With a warning beside them, leaks may be what is left of lost mappings.
    return left.leaks > 0 && left.warnings == 0 ? "no damage found, but space is wasted: "
                                                : "look at this: ";
  }

  void PutRepairVerdict(const RepairSummary& repair, const Counts& left) {
    std::string rest = left.problems() == 0 ? "nothing is left"
                                            : CountsText(left) + (repair.dry_run ? "" : " left");
    if (repair.patches == 0) {
      return PutVerdictLine(left.problems() == 0
                                ? "OK, nothing to repair"
                                : fmt::format("{}{}. --repair={} can do nothing about it; nothing "
                                              "was changed.",
                                              StateWord(left), rest, Printable(repair.mode)));
    }
    if (repair.dry_run) {
      std::string then = "nothing would be left";
      if (result_.after) {
        const Counts after = CountsOf(*result_.after->findings);
        if (after.problems() > 0) then = CountsText(after) + " would be left";
      }
      return PutVerdictLine(fmt::format(
          "{}{}. A repair (--repair={}) would write {} in {}; {}. Nothing was changed.",
          StateWord(left), rest, Printable(repair.mode), HumanSize(repair.bytes_written),
          Plural(repair.patches, "place", "places"), then));
    }
    Counts fixed{FixedUnits(result_, Severity::kCorruption), FixedUnits(result_, Severity::kLeak),
                 FixedUnits(result_, Severity::kWarning), 0};
    std::string text = fmt::format(
        "REPAIRED{}: {} mended, {}{}",
        repair.output.empty() ? "" : " into " + ShellQuoted(repair.output),
        fixed.problems() > 0 ? CountsText(fixed)
                             : Plural(FixedUnits(result_, Severity::kInfo), "remark", "remarks"),
        rest, repair.verified ? "" : " (NOT verified)");
    PutVerdictLine(text);
    if (!repair.lost.empty()) {
      PutLine(fmt::format("  {} may not be what the guest wrote: see above",
                          Plural(repair.lost.size(), "guest range", "guest ranges")));
    }
    if (!repair.undo_file.empty() && repair.output.empty()) {
      PutLine(fmt::format("  to take it back: imgfsck --rollback {} -- {}",
                          ShellQuoted(repair.undo_file), ShellQuoted(result_.path)));
    }
  }

  // What to do next, for what is left.
  void PutAdvice(const Counts& left, const Remedies& remedies) {
    if (left.problems() == 0 || options_.verbosity < 0) return;
    if (result_.repair && !result_.repair->dry_run) {
      if (remedies.all > 0 && result_.repair->mode != "all") PutAllAdvice();
      return;
    }
    if (check_->findings->Has(Problem::kImageInUse)) {
      return PutLine("  A running program holds it: end that, then check again.");
    }
    if (left.corruptions > 0) PutLine("  Do not start the VM on it. Keep a copy of the file.");
    const std::string_view tried = result_.repair ? std::string_view(result_.repair->mode) : "";
    const bool all_first = tried != "all" && SharesWhileOwnersAreMissing(*check_->findings);
    if (all_first) {
      PutLine(
          fmt::format("  first see: imgfsck --repair=all --dry-run -- {}   (may bring back what "
                      "was lost; after a safe repair it cannot)",
                      ShellQuoted(result_.path)));
    }
    if (result_.repair && result_.repair->patches > 0) {
      PutLine("  next: the same command without --dry-run does it (can be undone)");
    } else if (remedies.safe > 0 && (tried.empty() || tried == "leaks")) {
      PutLine(
          fmt::format("  next: imgfsck --repair -- {}   (changes no byte that the guest can "
                      "read; can be undone)",
                      ShellQuoted(result_.path)));
    }
    if (remedies.all > 0 && tried != "all" && !all_first) PutAllAdvice();
    if (remedies.safe + remedies.all == 0) {
      PutLine("  No repair can help here; what the findings say is all that can be done.");
    }
  }
  void PutAllAdvice() {
    PutLine(fmt::format("  see what the rest would cost: imgfsck --repair=all --dry-run -- {}",
                        ShellQuoted(result_.path)));
  }

  const ImageResult& result_;
  const ReportOptions& options_;
  TextWriter& out_;
  const CheckResult* check_;
  LayerNames names_;
};

}  // namespace

void WriteImageText(const ImageResult& result, const ReportOptions& options, TextWriter& out) {
  ImageText(result, options, out).Write();
}

}  // namespace imgfsck
