// SPDX-License-Identifier: Apache-2.0
// Reading for walks that never stop at damage.
#pragma once

#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

// Fills buffer; bytes past the end of the source and sectors that the medium does not give are
// zeros, the latter are added to *bad (merged with what ends there).
void ReadTolerant(const ByteSource& source, uint64_t offset, MutableBytes buffer,
                  std::vector<HostRange>* bad);

}  // namespace imgfsck
