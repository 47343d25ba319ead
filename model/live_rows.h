// SPDX-License-Identifier: Apache-2.0
// The rows of the five virtual tables: where a scan gets them, and their columns in the schema's
// order. Internal to model/.
#pragma once

#include <sqlite3.h>

#include <memory>

#include "model/live_scan.h"
#include "model/live_state.h"

namespace imgfsck {

using FindingPointer = const Finding*;

// Null: there are no rows.
Result<std::unique_ptr<RowCursor<MappingRow>>> OpenMappings(LiveState& state, const Scan& scan);
Result<std::unique_ptr<RowCursor<RegionRow>>> OpenRegions(LiveState& state, const Scan& scan);
Result<std::unique_ptr<RowCursor<RefcountRow>>> OpenRefcounts(LiveState& state, const Scan& scan);
Result<std::unique_ptr<RowCursor<BitmapRangeRow>>> OpenBitmapRanges(LiveState& state,
                                                                    const Scan& scan);
Result<std::unique_ptr<RowCursor<FindingPointer>>> OpenFindings(LiveState& state, const Scan& scan);

void PutColumn(sqlite3_context* context, LiveState& state, const MappingRow& row, int column);
void PutColumn(sqlite3_context* context, LiveState& state, const RegionRow& row, int column);
void PutColumn(sqlite3_context* context, LiveState& state, const RefcountRow& row, int column);
void PutColumn(sqlite3_context* context, LiveState& state, const BitmapRangeRow& row, int column);
void PutColumn(sqlite3_context* context, LiveState& state, FindingPointer row, int column);

}  // namespace imgfsck
