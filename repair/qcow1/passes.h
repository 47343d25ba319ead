// SPDX-License-Identifier: Apache-2.0
// The repair passes of qcow version 1 images, a function each, in the order in which they run. Each
// works on the overlay of its context, whose check report is that of the very same bytes.
#pragma once

#include "repair/pass.h"

namespace imgfsck::qcow1 {

Result<PassOutcome> RepairHeader(const PassContext& context);       // rows 1–9, 34
Result<PassOutcome> RepairBackingName(const PassContext& context);  // rows 31, 32
Result<PassOutcome> RepairXenOrder(const PassContext& context);     // row 36
Result<PassOutcome> RepairL1Place(const PassContext& context);      // rows 10, 11
Result<PassOutcome> RepairConflicts(const PassContext& context);    // rows 16, 21, 22, 27
Result<PassOutcome> RepairL1Entries(const PassContext& context);    // rows 12–14, 17, 23
Result<PassOutcome> RepairLength(const PassContext& context);       // rows 15, 20
Result<PassOutcome> RepairL2Entries(const PassContext& context);    // rows 18, 19, 24–26, 28, 29
Result<PassOutcome> RelinkTables(const PassContext& context);       // row 38
Result<PassOutcome> RepairXenChecksum(const PassContext& context);  // row 37
Result<PassOutcome> ExportOrphans(const PassContext& context);      // --orphans dir:PATH
Result<PassOutcome> Rewrite(const PassContext& context);            // rows 30, 33

}  // namespace imgfsck::qcow1
