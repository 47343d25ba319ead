// SPDX-License-Identifier: Apache-2.0
// The check of a qcow version 1 image: the header, the tables and who claims what, then what nobody
// claims. There are no counts to compare with: this format stores none.
#include "analyzers/qcow1/check.h"

#include "analyzers/qcow1/rules.h"
#include "analyzers/qcow1/state.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

void Describe(const Image& image, CheckReport* report) {
  report->version = std::to_string(image.header.version);
  report->file_size = image.file_size;
  report->virtual_size = AlignDown(image.header.size, kSector);
  if (!GeometryIsSane(image.header)) return;
  report->cluster_size = image.geometry.cluster_size;
  report->counts.total_clusters = image.geometry.ClustersOf(image.geometry.virtual_size);
}

void AddUnreadable(const std::vector<HostRange>& ranges, CheckReport* report) {
  for (const HostRange& range : ranges) {
    Finding f = MakeFinding(Problem::kImageUnreadable, "metadata");
    f.host = range;
    report->findings.Add(std::move(f));
    ++report->counts.check_errors;
  }
}

Status RunCheck(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  IMG_ASSIGN_OR_RETURN(auto parsed, ParseImage(source));
  auto state = std::make_shared<CheckState>();
  const Image& image = *parsed;
  state->image = &image;
  report->rows = MakeRows(std::move(parsed), options.path);
  report->detail = state;
  Describe(image, report);
  Findings* findings = &report->findings;
  JudgeHeader(image, findings);
  JudgeLinks(image, options, findings);
  if (image.walkable && image.l1_clear) {
    IMG_RETURN_IF_ERROR(JudgeXen(image, findings));
    IMG_RETURN_IF_ERROR(JudgeTables(state.get(), report));
    IMG_RETURN_IF_ERROR(JudgeConflicts(state.get(), findings));
    IMG_RETURN_IF_ERROR(JudgeWaste(state.get(), findings));
    if (options.deep) IMG_RETURN_IF_ERROR(JudgeStreams(*state, findings));
  }
  AddUnreadable(image.unreadable, report);
  AddUnreadable(state->unreadable, report);
  return Ok();
}

}  // namespace
}  // namespace imgfsck::qcow1

namespace imgfsck {
const Checker kQcow1Checker = {"qcow", qcow1::RunCheck};
}  // namespace imgfsck
