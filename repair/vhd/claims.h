// SPDX-License-Identifier: Apache-2.0
// Which entries of the block table lie where they cannot lie: of blocks that share bytes the worse
// founded ones, and blocks that the file's end cuts and that no other block is in step with.
#pragma once

#include <vector>

#include "analyzers/vhd/state.h"

namespace imgfsck::vhd {

struct Loser {
  Block block;
  bool shares = false;  // bytes with a better one: needs a copy of its own
  // Another one is clearly better founded, so this entry is damage: its block is elsewhere.
  bool surely = false;
};

// `blocks` ascending. Of those that share bytes the best stays; of equals the first.
std::vector<Loser> JudgeClaims(const Image& image, const std::vector<Block>& blocks);

}  // namespace imgfsck::vhd
