// SPDX-License-Identifier: Apache-2.0
// What a check of a VHD leaves for the repair passes: CheckReport::detail.
#pragma once

#include <memory>
#include <vector>

#include "analyzers/check.h"
#include "formats/vhd/image.h"

namespace imgfsck::vhd {

// A block that the table names, inside the file and clear of metadata (it may reach past the end).
struct Block {
  uint32_t sector = 0;  // of its bitmap
  uint32_t index = 0;   // in the table
  uint64_t offset() const { return uint64_t{sector} * kSectorSize; }
  friend auto operator<=>(const Block&, const Block&) = default;
};
static_assert(sizeof(Block) == 8);

// What a range that nothing uses holds. Only a deep check looks.
enum class Content : uint8_t {
  kUnknown,
  kZero,        // a hole, or all zero
  kFiller,      // zeros and ones, as programs pad with
  kSuperseded,  // zeros and old footers of this disk
  kData,        // something else: perhaps the only copy of it
};

struct Gap {
  HostRange host;
  Content content = Content::kUnknown;
};

struct CheckState {
  std::shared_ptr<Image> image;
  std::vector<Block> blocks;  // ascending; only of sparse disks
  std::vector<Gap> gaps;      // ascending: space that nothing uses, at most kMaxGaps
  bool gaps_complete = true;
  uint64_t end_of_data = 0;   // of metadata and of the blocks that lie in the file
  bool table_sound = false;   // no corruption in the block table
  bool table_usable = false;  // there is a table to speak of
};
inline constexpr size_t kMaxGaps = 1 << 20;
inline constexpr uint64_t kSmallGap = 4096;  // bytes: alignment, no leak when it is filler

inline const CheckState& StateOf(const CheckReport& report) {
  return *static_cast<const CheckState*>(report.detail.get());
}

// The part of block `index` that belongs to the disk; empty past its end.
GuestRange GuestOf(const Image& image, uint64_t index);

// How many of its two neighbours in the table a block also neighbours in the file: 0 to 2.
int NeighbourFit(const Image& image, const Block& block);

// What [host) holds; `image` for its unique id. Reads all of it but holes.
Content ClassifyContent(const Image& image, HostRange host);

}  // namespace imgfsck::vhd
