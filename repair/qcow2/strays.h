// SPDX-License-Identifier: Apache-2.0
// Single entries of sound L2 tables that lost the cluster they led to: entries that lead nowhere,
// or to a cluster that is somebody else's, or to nothing between neighbours that frame exactly one
// run of clusters without an owner.
#pragma once

#include <functional>
#include <vector>

#include "analyzers/qcow2/orphans.h"
#include "repair/qcow2/donor.h"
#include "repair/qcow2/editor.h"

namespace imgfsck::qcow2 {

// One entry that now leads to `cluster`.
struct Restored {
  TableRef table;
  uint64_t index = 0;
  uint64_t cluster = 0;
  double confidence = 0;
  std::string_view evidence;
  uint64_t released = 0;  // the cluster that it claimed together with others before; else 0
};

// Mends the entries in `overlay` and says which. `loose`: tables were found that may be some
// layer's, and could not be put back. `orphans` knows afterwards what was taken.
Status RestoreEntries(Overlay& overlay, const CheckState& state, const Donor& donor, bool loose,
                      Orphans* orphans, std::vector<Restored>* restored);

}  // namespace imgfsck::qcow2
