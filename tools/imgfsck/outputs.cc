// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/outputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/range_set.h"
#include "io/bad_ranges.h"
#include "io/file.h"
#include "model/lost_ranges.h"
#include "report/words.h"

namespace imgfsck {
namespace {

// Guest ranges of one layer that share an effect.
using LostKind = std::pair<std::string, Effect>;

// `whole`: with what a damaged structure does to a disk as a whole.
std::map<LostKind, RangeSet> LostIn(const CheckReport& report, bool whole) {
  std::map<LostKind, RangeSet> lost;
  for (const LostPiece& piece :
       LostPieces(report.findings, report.rows.get(), report.virtual_size)) {
    if (piece.whole && !whole) continue;
    lost[{piece.layer, piece.effect}].Add(piece.guest.offset.value, piece.guest.length);
  }
  return lost;
}

// What damage did to the guest and the repair did not bring back: a mended structure alone does not
// give back what the guest wrote.
void AddStillLost(const Plan& plan, RepairSummary* summary) {
  std::map<std::string, RangeSet> changed;
  for (const auto* list : {&plan.changed, &plan.lost, &plan.settled}) {
    for (const LayerRange& range : *list) {
      changed[range.layer].Add(range.guest.offset.value, range.guest.length);
    }
  }
  std::map<LostKind, RangeSet> rest = LostIn(plan.Final(), true);
  for (auto& [kind, ranges] : LostIn(plan.before, false)) {
    // What could not be read before can be now, or is among what is left; so is a disk as a whole.
    if (kind.second == Effect::kUnreadable) continue;
    RangeSet still = ranges.Without(changed[kind.first]);
    for (const auto& [begin, end] : still.Ranges()) rest[kind].Add(begin, end - begin);
  }
  for (auto& [kind, ranges] : rest) {
    for (const auto& [begin, end] : ranges.Ranges()) {
      summary->lost.push_back({kind.first, MakeGuestRange(begin, end - begin), kind.second, false});
    }
  }
}

}  // namespace

RepairSummary SummaryOf(const Plan& plan, std::string_view mode) {
  RepairSummary summary;
  summary.mode = mode;
  // A new length alone is a change too.
  summary.patches = std::max<uint64_t>(plan.patches, plan.Empty() ? 0 : 1);
  summary.bytes_written = plan.bytes;
  summary.verified = true;
  for (const LayerRange& range : plan.lost) {
    summary.lost.push_back({range.layer, range.guest, Effect::kZero, true});
  }
  AddStillLost(plan, &summary);
  summary.orphans = {plan.orphans.kept, plan.orphans.relinked, plan.orphans.freed,
                     plan.orphans.where};
  auto add_once = [](std::vector<std::string>* list, const std::string& text) {
    if (std::find(list->begin(), list->end(), text) == list->end()) list->push_back(text);
  };
  for (const PassRun& run : plan.passes) {
    if (run.dropped) {
      add_once(&summary.refused, fmt::format("{}: {}", run.sentence, run.reason));
    } else if (run.outcome.changes > 0) {
      add_once(&summary.done, run.sentence);
      for (const std::string& text : run.outcome.particulars) add_once(&summary.done, text);
    }
    for (const std::string& note : run.outcome.notes) add_once(&summary.refused, note);
  }
  return summary;
}

Status WriteLostMap(const ImageResult& result, const std::string& path) {
  const CheckResult* check = FinalCheck(result);
  if (check == nullptr) return Ok();
  std::map<LostKind, RangeSet> lost;
  auto add = [&](const std::string& layer, GuestRange guest, Effect effect) {
    lost[{layer, effect}].Add(guest.offset.value, guest.length);
  };
  if (result.repair) {
    for (const LostRange& range : result.repair->lost) add(range.layer, range.guest, range.effect);
  } else {
    for (LostPiece& p : LostPieces(*check->findings, check->rows, check->virtual_size)) {
      add(p.layer, p.guest, p.effect);
    }
  }
  std::vector<GuestRange> active;
  std::vector<std::string> comments = {
      "Guest ranges of the active disk that do not read as they were written are bad sectors here.",
      "Of what, offset, length, and what is read there instead:"};
  const LayerNames names(check->rows);
  for (auto& [kind, ranges] : lost) {
    for (const auto& [begin, end] : ranges.Ranges()) {
      comments.push_back(fmt::format("{}: {:#x} {:#x} {}", names.Of(kind.first), begin, end - begin,
                                     ToText(kind.second)));
      if (kind.first == kActiveLayer) active.push_back(MakeGuestRange(begin, end - begin));
    }
  }
  if (LostPiecesIncomplete(*check->findings)) {
    comments.push_back("There is more: --max-findings limits what is kept.");
  }
  std::sort(active.begin(), active.end());
  IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(path, FileStore::Mode::kCreateNew));
  const std::string map = FormatDdrescueMap(check->virtual_size, active, comments);
  IMG_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(map)));
  return file->Sync();
}

Status AddToDatabase(const CheckReport& report, int64_t image_id, DatabaseFile* database) {
  if (report.rows == nullptr) return Ok();
  ModelSource source;
  source.rows = report.rows.get();
  source.findings = [&]() -> Result<const Findings*> { return &report.findings; };
  source.refcounts = [&](const RowQuery& query) -> Result<std::unique_ptr<RowCursor<RefcountRow>>> {
    return report.refcounts ? report.refcounts(query) : nullptr;
  };
  source.image_id = image_id;
  return database->Add(source);
}

}  // namespace imgfsck
