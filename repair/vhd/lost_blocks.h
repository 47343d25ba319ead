// SPDX-License-Identifier: Apache-2.0
// Blocks that no entry of the block table names, found in the gaps of the file.
#pragma once

#include <vector>

#include "analyzers/vhd/state.h"

namespace imgfsck::vhd {

// `blocks` blocks that lie one behind the other.
struct LostBlocks {
  uint64_t offset = 0, blocks = 0;
  uint64_t stride = 0;  // from one to the next: the length of a block, or that up to 4 KiB
};

// In ascending order; `blocks`, ascending, are those that the table names rightly. A gap with data
// that is as long as whole blocks is taken for blocks; of another gap its beginning or its end is,
// when what stands there is as a sector bitmap would be.
Result<std::vector<LostBlocks>> FindLostBlocks(const Image& image,
                                               const std::vector<Block>& blocks);

}  // namespace imgfsck::vhd
