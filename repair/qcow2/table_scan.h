// SPDX-License-Identifier: Apache-2.0
// Looks through the clusters that nothing refers to for L2 and L1 tables: orphaned ones, and copies
// that an earlier write or a deleted snapshot left behind. Guest data may look like a table by
// chance or by intent: a table counts for as much as its entries lead to clusters that miss a
// reference.
#pragma once

#include <map>
#include <vector>

#include "analyzers/qcow2/orphans.h"

namespace imgfsck::qcow2 {

struct ScannedTables {
  std::map<uint64_t, FoundTable> tables;  // by offset
  bool truncated = false;                 // there were more than are kept
};

// `image` is the overlay that the repair works on. Tables with less than a quarter of their entries
// on clusters that miss a reference are left out.
Status ScanForTables(const ByteSource& image, const CheckState& state, const Orphans& orphans,
                     ScannedTables* result);

}  // namespace imgfsck::qcow2
