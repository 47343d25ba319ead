// SPDX-License-Identifier: Apache-2.0
// Copies a disk: reads, decodes and compares on all cores, writes in order, keeps holes; with
// salvage, past damage.
#pragma once

#include <string>
#include <vector>

#include "chain/chain.h"
#include "tools/common/terminal.h"

namespace imgfsck {

struct CopyOptions {
  unsigned threads = 1;
  bool compress = false;
  bool salvage = false;
  bool zeros_needed = false;    // the target does not read as zeros by itself
  bool parallel_write = false;  // the target's Write() may come from several threads at once
  uint64_t sparse = 4096;       // zeros of at least so many bytes are not written; 0: all are
  // What the target reads where nothing was written, zeros past its end; null: zeros throughout.
  // Only what differs from it is written.
  Driver* base = nullptr;
  Progress* progress = nullptr;
};

// Copies all of `source` to the front of `target`. *lost: guest ranges that could not be read
// (with salvage; they become zeros), ascending and merged.
Status CopyDisk(Driver& source, Driver& target, const CopyOptions& options,
                std::vector<GuestRange>* lost);

// Reads what can be read of the range, zeros for the rest, which is added to *lost.
Status ReadPastDamage(Driver& source, uint64_t offset, MutableBytes buffer,
                      std::vector<GuestRange>* lost);

}  // namespace imgfsck
