// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/outputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/bad_ranges.h"
#include "io/file.h"

namespace imgfsck {

RepairSummary SummaryOf(const Plan& plan, std::string_view mode) {
  RepairSummary summary;
  summary.mode = mode;
  summary.patches = plan.patches;
  summary.bytes_written = plan.bytes;
  summary.verified = true;
  for (const LayerRange& range : plan.lost) summary.lost.push_back({range.layer, range.guest});
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
