// SPDX-License-Identifier: Apache-2.0
// The guest-to-host map of an image together with its backing files, as `qemu-img map` shows it.
#pragma once

#include "chain/chain.h"
#include "report/map.h"

namespace imgfsck {

// Of guest bytes [begin, end), which lie within the disk.
Status WriteChainMap(Chain& chain, uint64_t begin, uint64_t end, MapStyle style, TextWriter& out);

}  // namespace imgfsck
