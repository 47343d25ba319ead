// SPDX-License-Identifier: Apache-2.0
// Marks of features that we do not know say "nobody who did not know me has written since": whoever
// writes takes them away. So they go as soon as a repair changes anything at all, and else only by
// --fix.
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

Result<PassOutcome> RunAutoclear(const PassContext& context) {
  PassOutcome outcome;
  const bool written = context.first != nullptr && context.first != &context.report;
  const uint64_t marks = StateOf(context.report).image->header.autoclear_features;
  if (!written && !Allowed(Problem::kQcow2HdrAutoclearUnknown, context.options)) return outcome;
  uint8_t bytes[8];
  StoreBe(bytes, marks & kAutoclearKnown);
  IMG_RETURN_IF_ERROR(context.image.WriteAt(88, bytes));
  outcome.changes = 1;
  return outcome;
}

}  // namespace

const Pass kAutoclearPass{"autoclear", 85, "take away the marks that every writer has to take away",
                          [](const CheckReport& report, const RepairOptions&) {
                            return report.findings.Has(Problem::kQcow2HdrAutoclearUnknown);
                          },
                          RunAutoclear};

}  // namespace imgfsck::qcow2
