// SPDX-License-Identifier: Apache-2.0
// The hot loop: every L2 table of the image is read once, every entry validated, every use of a
// cluster claimed. Entries in perfect order are taken 64 at a time without a branch each; whatever
// else goes through entry_rules.h. Work is split by column; results do not depend on the threads.
#pragma once

#include <vector>

#include "analyzers/check.h"
#include "analyzers/qcow2/claims.h"
#include "analyzers/qcow2/columns.h"
#include "analyzers/qcow2/stream_places.h"

namespace imgfsck::qcow2 {

struct EmptyTable {  // an L2 table of zeros only
  TableRef table;
};

struct WalkResult {
  ClaimMap claims;
  CheckCounts counts;              // allocated, fragmented and compressed clusters
  std::vector<TableRef> repeated;  // uses of an L2 table in a second column; their data clusters
                                   // are counted, not walked again
  std::vector<TableRef> empty_tables;  // all zero; at most kMaxEmptyTables
  std::vector<TableRef> implausible;   // no L2 tables by their content: claim nothing
  StreamPlaces streams;                // every compressed entry's, each at its least length
  std::vector<HostRange> unreadable;
  uint64_t tables = 0;
  uint64_t data_file_end = 0;  // end of the last cluster mapped in an external data file
};
inline constexpr size_t kMaxEmptyTables = 4096, kMaxRepeatedTables = 1 << 20;

// Walks everything below the L1 tables into *result (its `claims` made beforehand, metadata other
// than L2 tables claimed already).
Status WalkTables(const Image& image, const Columns& columns, const CheckOptions& options,
                  WalkResult* result, Findings* findings);

// About the active L1 entry that leads to `table`.
Finding L1CopiedFinding(const Image& image, const TableRef& table);

// Decides by content whether `table` can be an L2 table at all.
bool Implausible(const Image& image, Bytes table);

}  // namespace imgfsck::qcow2
