// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/outputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "io/bad_ranges.h"
#include "io/file.h"
#include "repair/range_set.h"

namespace imgfsck {
namespace {

// Guest ranges of one layer that share an effect.
using LostKind = std::pair<std::string, Effect>;

void AddFinding(const Finding& finding, std::map<LostKind, RangeSet>* lost) {
  const Effect effect = finding.effect_or_default();
  auto add = [&](const std::string& layer, const GuestRange& guest) {
    (*lost)[{layer.empty() ? std::string(kActiveLayer) : layer, effect}].Add(guest.offset.value,
                                                                             guest.length);
  };
  if (finding.guest) add(finding.layer, *finding.guest);
  if (effect != Effect::kWrong) return;
  for (const Claimant& other : finding.also) {  // nobody knows which of them is the wrong one
    if (other.guest) add(other.layer, *other.guest);
  }
}

// What damage did to the guest and the repair did not bring back: a mended structure alone does not
// give back what the guest wrote.
void AddStillLost(const Plan& plan, RepairSummary* summary) {
  std::map<LostKind, RangeSet> lost;
  for (const Finding& finding : plan.before.findings.kept()) {
    const Effect effect = finding.effect_or_default();
    // What could not be read before can be now, or is found again below.
    if (effect != Effect::kNone && effect != Effect::kUnreadable) AddFinding(finding, &lost);
  }
  std::map<std::string, RangeSet> changed;
  for (const auto* list : {&plan.changed, &plan.lost, &plan.settled}) {
    for (const LayerRange& range : *list) {
      changed[range.layer].Add(range.guest.offset.value, range.guest.length);
    }
  }
  std::map<LostKind, RangeSet> rest;
  for (auto& [kind, ranges] : lost) rest[kind] = ranges.Without(changed[kind.first]);
  for (const Finding& finding : plan.Final().findings.kept()) {
    if (finding.effect_or_default() != Effect::kNone) AddFinding(finding, &rest);
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
  const uint64_t size = check->virtual_size;
  std::vector<GuestRange> lost;
  auto add = [&](std::string_view layer, GuestRange range) {
    if (layer != kActiveLayer || range.offset.value >= size) return;
    range.length = std::min(range.length, size - range.offset.value);
    lost.push_back(range);
  };
  for (const CheckResult& each : {*check, *result.before}) {
    for (const Finding& finding : each.findings->kept()) {
      if (finding.guest && finding.effect_or_default() != Effect::kNone) {
        add(finding.layer, *finding.guest);
      }
    }
  }
  if (result.repair) {
    for (const LostRange& range : result.repair->lost) add(range.layer, range.guest);
  }
  std::sort(lost.begin(), lost.end());
  IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(path, FileStore::Mode::kCreateNew));
  IMG_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(FormatDdrescueMap(size, lost))));
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
