// SPDX-License-Identifier: Apache-2.0
// Which files of the guest own given ranges of its disk. Runs code for file systems that was not
// written for hostile disks, so only ever in a worker under limits and a filter of system calls.
#pragma once

#include <functional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "model/name_facts.h"

namespace imgfsck {

struct GuestDisk {
  uint64_t size = 0;
  std::function<Status(uint64_t offset, MutableBytes buffer)> read;
};

// The names of what overlaps `wanted`. Never fails: what goes wrong is in the answer.
NameFacts NameRanges(const GuestDisk& disk, std::vector<GuestRange> wanted,
                     size_t most_hits = 10000);

// The same, and the files of each set.
NameFacts AnswerNames(const GuestDisk& disk, const NameQuery& query);

// False without The Sleuth Kit's library: NameRanges() then only says so. The first call loads the
// library, which must come before a sandbox.
bool CanNameFiles();

}  // namespace imgfsck
