// SPDX-License-Identifier: Apache-2.0
// Where an L1 table may lie: among the table-shaped clusters of a scan, those whose entries lead to
// other table-shaped clusters.
#pragma once

#include <set>
#include <vector>

#include "analyzers/qcow2/recover/lens.h"
#include "analyzers/qcow2/recover/scan.h"

namespace imgfsck::qcow2 {

struct L1Candidate {
  Layout layout;  // with the table's place and entries
  MapLook look;
};

// The best few under `layout` (its own L1 fields do not matter), best first. `known`: clusters that
// belong to something else. `entries_wanted`: what the disk's size asks for, 0 when it is not
// known.
Result<std::vector<L1Candidate>> FindL1Tables(Lens& lens, const ScanResult& scan,
                                              const Layout& layout, const std::set<uint64_t>& known,
                                              uint64_t entries_wanted);

}  // namespace imgfsck::qcow2
