// SPDX-License-Identifier: Apache-2.0
// Internal snapshots (sheet, sections 8 and 13). Changing ones are called after
// Core::BeginWriting(); cut short anywhere, they leave the old or the new set of snapshots.
#pragma once

#include <string_view>

#include "formats/qcow2/driver_core.h"

namespace imgfsck::qcow2 {

std::vector<SnapshotInfo> ListSnapshots(const Core& core);
Status CreateSnapshot(Core& core, std::string_view name);
// The active disk becomes the snapshot's, size included.
Status ApplySnapshot(Core& core, std::string_view name_or_id);
Status DeleteSnapshot(Core& core, std::string_view name_or_id);

// A second L1 table's entry for the L2 table at `offset`: the table shared, all counts raised and
// COPIED cleared in it; where counts cannot be raised any more, a copy.
Result<uint64_t> ShareTable(Core& core, uint64_t l1_index, uint64_t offset);

}  // namespace imgfsck::qcow2
