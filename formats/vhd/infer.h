// SPDX-License-Identifier: Apache-2.0
// What the rest of a VHD tells about fields that are lost: how far apart its blocks lie, what looks
// like a block table, what size the guest's partition table speaks of. Every answer says why and
// how sure it is.
#pragma once

#include <optional>
#include <string>

#include "formats/vhd/image.h"

namespace imgfsck::vhd {

struct Inferred {
  uint64_t value = 0;
  double confidence = 0;  // 0-1
  std::string evidence;
};

// Where the block table begins: behind the header, or where sectors look like one.
Inferred InferTableOffset(const Image& image);
// An InferBlockSize with a higher confidence rests on blocks, not on habit.
inline constexpr double kSpacingTells = 0.7;
// From the distances between the blocks that the table at `table_offset` names, where the last one
// ends, and the number of entries in the header.
Inferred InferBlockSize(const Image& image, uint64_t table_offset);
// Size of a dynamic disk whose footers are both lost; needs the table.
Inferred InferDiskSize(const Image& image);
// Size of a fixed disk whose footer is lost; more than the file holds when the guest's partition
// table says that the end is cut off.
Inferred InferFixedSize(const Image& image);
// False when blocks of this size would lie over each other.
bool BlocksLieApart(const Image& image, uint64_t table_offset, uint64_t block_size);
// True when nearly all of 128 entries at `offset` (fewer at the end) could be a table of block
// positions.
bool LooksLikeTable(const Image& image, uint64_t offset);

}  // namespace imgfsck::vhd
