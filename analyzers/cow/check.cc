// SPDX-License-Identifier: Apache-2.0
// The check of a COW image: which layout it has, whether its numbers fit the file, and what the
// bitmap says against what is there.
#include "analyzers/cow/check.h"

#include "analyzers/cow/rules.h"
#include "formats/cow/walk.h"

namespace imgfsck::cow {
namespace {

Status RunCheck(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  IMG_ASSIGN_OR_RETURN(auto parsed, ParseImage(source));
  auto state = std::make_shared<CheckState>();
  const Image& image = *parsed;
  state->image = &image;
  report->rows = MakeRows(std::move(parsed), options.path);
  report->detail = state;
  report->version = std::to_string(image.header.version);
  report->file_size = image.file_size;
  if (image.geometry.valid) {
    report->virtual_size = image.geometry.virtual_size;
    report->cluster_size = image.geometry.sector_size;
    report->counts.total_clusters = image.geometry.sectors;
  }
  Findings* findings = &report->findings;
  JudgeHeader(image, findings);
  for (const HostRange& range : image.unreadable) {
    Finding f = MakeFinding(Problem::kImageUnreadable, "header");
    f.host = range;
    findings->Add(std::move(f));
    ++report->counts.check_errors;
  }
  if (image.file_size < image.header.spec().header_length) return Ok();
  JudgeLinks(state.get(), options, findings);
  JudgeUpgrade(state.get(), findings);
  if (!image.walkable) return Ok();
  IMG_RETURN_IF_ERROR(JudgeBitmap(*state, report));
  return options.deep ? JudgeSectors(*state, findings) : Ok();
}

}  // namespace
}  // namespace imgfsck::cow

namespace imgfsck {
const Checker kCowChecker = {"cow", cow::RunCheck};
}  // namespace imgfsck
