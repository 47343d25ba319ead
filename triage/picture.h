// SPDX-License-Identifier: Apache-2.0
// Where things lie in an image file, and on the disk in it, as rows of cells from the first byte to
// the last. A cell shows the worst of what lies in it; the true numbers stand beside.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "analyzers/check.h"
#include "model/rows.h"

namespace imgfsck {

// A later one is worse, and is what is seen of a cell.
enum class CellState : uint8_t {
  kEmpty,        // of the file: nobody claims it, and it is zeros
  kUnallocated,  // of the disk: not in this file
  kZero,
  kFree,  // of the file: nobody claims it, and it is not zeros
  kMetadata,
  kData,
  kCompressed,
  kDirty,    // of the disk: a bitmap calls it changed
  kLeaked,   // of the file: counted as used, and nobody claims it
  kOverlap,  // claimed by several
  kDamaged,
  kUnreadable,
  kStates,  // how many there are
};
std::string_view ToText(CellState state);  // "empty" …

struct Picture {
  uint64_t size = 0;                                                      // bytes shown
  uint64_t cell = 0;                                                      // bytes a cell
  std::vector<uint8_t> cells;                                             // CellState
  std::array<uint64_t, static_cast<size_t>(CellState::kStates)> bytes{};  // of each state

  bool empty() const { return cells.empty(); }
};

// Fail when a signal asked to stop.
Result<Picture> PictureOfFile(const ByteSource& file, const ImageRows& rows,
                              const Findings& findings);
Result<Picture> PictureOfDisk(const ImageRows& rows, const Findings& findings);

}  // namespace imgfsck
