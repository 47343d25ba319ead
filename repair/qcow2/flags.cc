// SPDX-License-Identifier: Apache-2.0
// The dirty and corrupt marks are lifted last, when nothing is left that they stand for.
#include "analyzers/qcow2/rules.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

// Something worse than a leak is left, the marks themselves not counted.
bool CorruptionLeft(const CheckReport& report) {
  for (const Finding& f : report.findings.kept()) {
    if (f.severity_or_default() == Severity::kCorruption &&
        f.problem != Problem::kQcow2HdrCorrupt) {
      return true;
    }
  }
  return false;
}

Result<PassOutcome> RunFlags(const PassContext& context) {
  PassOutcome outcome;
  const Header& header = StateOf(context.report).image->header;
  if (CorruptionLeft(context.report)) {
    outcome.notes.push_back("the dirty and corrupt marks stay while damage is left");
    return outcome;
  }
  uint64_t clear = 0;
  if (Allowed(Problem::kQcow2HdrDirty, context.options)) clear |= kIncompatDirty;
  if (Allowed(Problem::kQcow2HdrCorrupt, context.options)) clear |= kIncompatCorrupt;
  uint64_t features = header.incompatible_features & ~clear;
  if (features == header.incompatible_features) return outcome;
  uint8_t bytes[8];
  StoreBe(bytes, features);
  IMG_RETURN_IF_ERROR(context.image.WriteAt(72, bytes));
  outcome.changes = 1;
  return outcome;
}

}  // namespace

const Pass kFlagPass{
    "marks", 90, "lift the dirty and corrupt marks once nothing else is wrong",
    [](const CheckReport& report, const RepairOptions& options) {
      return WantedAny(report, options, {Problem::kQcow2HdrDirty, Problem::kQcow2HdrCorrupt});
    },
    RunFlags};

}  // namespace imgfsck::qcow2
