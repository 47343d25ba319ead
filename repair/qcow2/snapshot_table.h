// SPDX-License-Identifier: Apache-2.0
// Writes a whole snapshot table, in place where it fits, and points the header at it.
#pragma once

#include "repair/qcow2/editor.h"

namespace imgfsck::qcow2 {

// `used_end`: where the present table's last byte is (0: as parsed).
Status WriteSnapshotTable(Editor& editor, const std::vector<Snapshot>& entries, uint64_t used_end);
// The highest number among the ids, plus 1.
std::string NextSnapshotId(const std::vector<Snapshot>& entries);
// Makes room for and sets the VM state size (as it was) and the disk size.
void SetSnapshotDiskSize(Snapshot* snapshot, uint64_t disk_size);

}  // namespace imgfsck::qcow2
