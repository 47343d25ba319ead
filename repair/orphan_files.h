// SPDX-License-Identifier: Apache-2.0
// --orphans dir:PATH: what the image stores but nothing refers to, as files: one a range, named by
// its place in the image, and INDEX.tsv that says where each came from. Ranges of zeros are left
// out. Never overwrites: the directory is made, or must be empty.
#pragma once

#include <string>

#include "repair/engine.h"

namespace imgfsck {

struct OrphanFiles {
  uint64_t files = 0, bytes = 0, empty = 0;  // empty: ranges of zeros, left out
  bool complete = true;                      // false: more findings than the check kept
};

// `image` as it was. The pieces that passes found, then the leaks that are left in the plan's final
// report, as far as no piece covers them.
Result<OrphanFiles> WriteOrphanFiles(const ByteSource& image, const Plan& plan,
                                     const std::string& directory);

}  // namespace imgfsck
