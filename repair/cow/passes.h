// SPDX-License-Identifier: Apache-2.0
// The repair passes of COW images, a function each, in the order in which they run. Each works on
// the overlay of its context, whose check report is that of the very same bytes.
#pragma once

#include "analyzers/cow/state.h"
#include "repair/pass.h"

namespace imgfsck::cow {

Result<PassOutcome> Recreate(const PassContext& context);       // row 3
Result<PassOutcome> RepairSize(const PassContext& context);     // rows 14, 30: the size
Result<PassOutcome> RepairHeader(const PassContext& context);   // rows 1, 2, 7–12, 15, 17, 18, 31
Result<PassOutcome> Relink(const PassContext& context);         // rows 16, 29: --relink
Result<PassOutcome> RestoreOlder(const PassContext& context);   // row 35
Result<PassOutcome> RepairBitmap(const PassContext& context);   // rows 19, 22, 32
Result<PassOutcome> RepairSectors(const PassContext& context);  // rows 23–26
Result<PassOutcome> ExportOrphans(const PassContext& context);  // --orphans dir:PATH
Result<PassOutcome> RepairLength(const PassContext& context);   // rows 27, 28
Result<PassOutcome> Convert(const PassContext& context);        // rows 5, 6, 20, 21

// The header is written over the image's; bytes that no field covers stay.
Status WriteHeader(ByteStore& bytes, const Header& header);

}  // namespace imgfsck::cow
