// SPDX-License-Identifier: Apache-2.0
#include "extract/metadata_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "analyzers/common/linked_file.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "extract/selection.h"
#include "extract/tracing_source.h"

namespace imgfsck {
namespace {

struct Selector {
  std::string_view format;
  Status (*select)(Selection& selection);
};
constexpr Selector kSelectors[] = {
    {"qcow2", SelectQcow2}, {"qcow", SelectQcow1}, {"vpc", SelectVhd}, {"cow", SelectCow}};

// What a finding says without its texts, in which names may stand.
// Not about the image alone: it depends on what stands under a name, which may be redacted.
bool IsAboutOtherFile(Problem problem) {
  return problem == Problem::kQcow2DatafileShort || problem == Problem::kVhdParentUnresolved ||
         problem == Problem::kCowBackingSize || problem == Problem::kCowBackingMtime;
}

using Essence =
    std::tuple<Problem, std::string, std::string, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t>;
std::multiset<Essence> EssenceOf(const Findings& findings, bool redacted) {
  std::multiset<Essence> all;
  for (const Finding& f : findings.kept()) {
    if (redacted && IsAboutOtherFile(f.problem)) continue;
    const HostRange host = f.host.value_or(HostRange{});
    const GuestRange guest = f.guest.value_or(GuestRange{});
    all.emplace(f.problem, f.structure, f.layer, host.offset.value, host.length, guest.offset.value,
                guest.length, f.count);
  }
  return all;
}

}  // namespace

std::string Selection::RedactedPath(const std::string& name) {
  const LinkedFile file = LookAtLinkedFile(options.path, name);
  return names.Path(name, file.state == LinkedFile::State::kPresent);
}

Status KeepMetadataRegions(Selection& selection, std::string_view but) {
  static constexpr std::string_view kPayload[] = {"data", "compressed", "vm-state", "slack"};
  const auto regions = selection.report.rows->Regions({});
  if (regions == nullptr) return Ok();
  std::vector<RegionRow> batch;
  for (;;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(regions->NextBatch(&batch));
    if (batch.empty()) return Ok();
    for (const RegionRow& row : batch) {
      if (std::ranges::find(kPayload, row.kind) == std::end(kPayload) && row.kind != but) {
        selection.copy.Keep(row.host_offset, row.length);
      }
    }
  }
}

Result<MetadataCopy> MakeMetadataCopy(const ByteSource& source, const Format& format,
                                      const MetadataCopyOptions& options) {
  const auto* selector = std::ranges::find(kSelectors, format.name, &Selector::format);
  if (selector == std::end(kSelectors)) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("a {} image holds nothing but guest data", format.name),
                 {}};
  }
  CheckOptions check;
  check.path = options.path;
  check.threads = options.threads;
  check.progress = options.progress;
  TracingSource traced(source);
  IMG_ASSIGN_OR_RETURN(const CheckReport report, CheckImage(traced, format, check));
  MetadataCopy result;
  result.bytes = std::make_unique<KeptBytes>(source);
  Selection selection{source, report, traced.read(), options, *result.bytes, result.notes};
  IMG_RETURN_IF_ERROR(selector->select(selection));
  result.bytes->Finish();
  IMG_ASSIGN_OR_RETURN(const CheckReport again, CheckImage(*result.bytes, format, check));
  if (EssenceOf(report.findings, options.redact) != EssenceOf(again.findings, options.redact)) {
    result.notes.push_back("a check of the copy finds something else than a check of the image");
  }
  return result;
}

}  // namespace imgfsck
