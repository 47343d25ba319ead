// SPDX-License-Identifier: Apache-2.0
// For an image that was closed uncleanly with lazy refcounts: counts what refers to every cluster
// and writes a new refcount tree. Refuses anything that is damaged otherwise; that is a repair's
// business.
#pragma once

#include "formats/qcow2/driver_core.h"

namespace imgfsck::qcow2 {

// References of every cluster of the file but for the refcount tree itself. kInvalid: damage.
Result<std::vector<uint32_t>> CountReferences(Core* core);
// New refcounts, and COPIED flags that agree with them.
Status RepairDirty(Core* core);
// Makes COPIED of the active disk agree with the counts. The caller flushes.
Status FixCopied(Core* core);

}  // namespace imgfsck::qcow2
