// SPDX-License-Identifier: Apache-2.0
// Snapshot table, bitmap directory and LUKS header of an image whose header no longer names them.
// Only clusters that are counted and that nothing else uses can be theirs: the same bytes in a
// guest's file, or in a nested image, are that guest's data.
#pragma once

#include "analyzers/qcow2/recover/compose.h"
#include "analyzers/qcow2/recover/scan.h"

namespace imgfsck::qcow2 {

// `trial`: with the L1 table and the refcount table in place.
SideTables FindSideTables(const ByteSource& source, const ScanResult& scan, const Trial& trial);

// Clusters of L1 tables that entries of a snapshot table somewhere in the file name.
std::vector<uint64_t> SnapshotL1Clusters(const ByteSource& source, const ScanResult& scan,
                                         Lens& lens, const Layout& layout);

}  // namespace imgfsck::qcow2
