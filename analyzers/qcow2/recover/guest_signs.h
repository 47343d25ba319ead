// SPDX-License-Identifier: Apache-2.0
// What the guest itself wrote down about the size of its disk: partition tables and the superblocks
// of file systems that fill a disk without partitions. Guest data is no authority on anything else.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace imgfsck {

struct SizeSign {
  uint64_t bytes = 0;
  bool exact = false;  // the disk was this large; else at least this large
  std::string text;    // "a GPT", "an ext file system" …
};

// Reads guest bytes; false where they cannot be read.
using GuestReader = std::function<bool(uint64_t offset, MutableBytes buffer)>;

// All that is found; sizes beyond `limit` are not believed.
std::vector<SizeSign> FindSizeSigns(const GuestReader& read, uint64_t limit);

}  // namespace imgfsck
