// SPDX-License-Identifier: Apache-2.0
// The check of a VHD: footers, header, block table, gaps, batmap, locators, and on request sector
// bitmaps, data and parents. Where a structure is lost the walk goes by what the parser inferred.
#include "analyzers/vhd/check.h"

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "analyzers/vhd/state.h"
#include "base/checked.h"
#include "formats/vhd/rows.h"

namespace imgfsck::vhd {
namespace {

void Describe(const Image& image, CheckReport* report) {
  report->version = ToText(image.kind);
  report->virtual_size = image.VirtualSize();
  report->file_size = image.file_size;
  report->cluster_size = image.sparse() ? image.block_size : kSectorSize;
  report->counts.total_clusters =
      report->cluster_size == 0 ? 0 : DivRoundUp(image.VirtualSize(), report->cluster_size);
  report->counts.image_end_offset = image.trailing.state == SlotState::kAbsent
                                        ? image.file_size
                                        : image.trailing.offset + image.trailing.length;
  if (!image.sparse()) report->counts.allocated_clusters = report->counts.total_clusters;
}

Status CheckTables(const CheckOptions& options, CheckState* state, CheckReport* report) {
  const Image& image = *state->image;
  Findings* out = &report->findings;
  JudgeHeader(image, out);
  for (const MetaRegion& region : image.regions) {
    state->end_of_data = std::max(state->end_of_data, region.end());
  }
  IMG_RETURN_IF_ERROR(WalkTable(options, state, report));
  IMG_RETURN_IF_ERROR(JudgeGaps(options, state, out));
  IMG_RETURN_IF_ERROR(JudgeBatmap(image, out));
  JudgeLocators(image, out);
  if (options.deep) IMG_RETURN_IF_ERROR(JudgeBitmaps(*state, options, report));
  JudgeParent(image, options, out);
  return Ok();
}

Status RunCheck(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  auto policy = ParseSizePolicy(options.size_policy);
  if (!policy) {
    return Error{ErrorCode::kInvalid, "the size policy is chs, current_size or auto", {}};
  }
  auto state = std::make_shared<CheckState>();
  IMG_ASSIGN_OR_RETURN(state->image, ParseImage(source, {.policy = *policy}));
  const Image& image = *state->image;
  Findings* out = &report->findings;
  Describe(image, report);
  JudgeFooters(image, options, out);
  if (image.file_size >= kLegacyFooterSize) {
    JudgeFooterFields(image, out);
    JudgeSizes(image, out);
    if (image.sparse()) IMG_RETURN_IF_ERROR(CheckTables(options, state.get(), report));
    if (options.profile == "azure") JudgeAzure(image, out);
  }
  for (const HostRange& bad : image.unreadable) {
    out->Add(At(Problem::kImageUnreadable, "metadata", bad.offset.value, bad.length));
    ++report->counts.check_errors;
  }
  report->rows = MakeRows(state->image, options.path);
  report->detail = state;
  return Ok();
}

}  // namespace
}  // namespace imgfsck::vhd

namespace imgfsck {
const Checker kVhdChecker{"vpc", vhd::RunCheck};
}  // namespace imgfsck
