// SPDX-License-Identifier: Apache-2.0
// Writes the header that the check worked out from the tables (analyzers/qcow2/recover). Only the
// header and its extensions are written; whatever else the first cluster holds stays.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

bool Touches(const Finding& f, const Recovery& recovery) {
  return f.structure == "header" && f.host &&
         std::ranges::any_of(recovery.changes, [&](const FieldChange& change) {
           return f.host->Overlaps(MakeHostRange(change.field.offset, change.field.length));
         });
}

bool HeaderRebuildWanted(const CheckReport& report, const RepairOptions& options) {
  const CheckState& state = StateOf(report);
  return state.recovery != nullptr &&
         std::ranges::any_of(report.findings.kept(), [&](const Finding& f) {
           return Touches(f, *state.recovery) && Allowed(f, options);
         });
}

Result<PassOutcome> RunHeaderRebuild(const PassContext& context) {
  const CheckState& state = StateOf(context.report);
  const Recovery& recovery = *state.recovery;
  PassOutcome outcome;
  IMG_RETURN_IF_ERROR(context.image.WriteAt(0, recovery.view->prefix()));
  outcome.changes = 1;
  outcome.particulars.push_back(
      fmt::format("{} (confidence {:.2f})", recovery.evidence, recovery.confidence));
  for (const FieldChange& change : recovery.changes) {
    outcome.particulars.push_back(fmt::format("{}: {} instead of {}", change.field.name,
                                              Hex(change.after), Hex(change.before)));
  }
  outcome.notes = recovery.notes;
  // Nothing could be read before, or all stays.
  if (state.reconstructed || !recovery.remaps) return outcome;
  const Image& image = *state.image;
  outcome.whole_disks = true;
  for (size_t layer = 0; layer < image.LayerCount(); ++layer) {
    uint64_t size = std::max(image.LayerSize(layer), recovery.header.size);
    outcome.changed.push_back({image.LayerName(layer), MakeGuestRange(0, size)});
  }
  return outcome;
}

}  // namespace

const Pass kHeaderRebuildPass{"header-rebuild", 5,
                              "write a header that agrees with the tables of the file",
                              HeaderRebuildWanted, RunHeaderRebuild};

}  // namespace imgfsck::qcow2
