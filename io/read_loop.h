// SPDX-License-Identifier: Apache-2.0
// Turns pread-like calls (short, interrupted, failing on a bad sector) into one answer. Apart from
// file.cc so that a test can play the medium.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

// As pread(2): bytes read, 0 at the end, -1 with errno.
using PreadCall = std::function<ssize_t(uint8_t* to, size_t length, uint64_t offset)>;

// Fills `buffer` from `offset` on; fewer bytes only at the end. When the medium fails inside, what
// precedes the bad place has been read into `buffer`, and the error's offset is the start of the
// first sector (512 bytes) that cannot be read, or `offset` where that lies inside it.
Result<size_t> ReadLoop(const PreadCall& pread_call, uint64_t offset, MutableBytes buffer,
                        const std::string& path);

}  // namespace imgfsck
