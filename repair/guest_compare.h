// SPDX-License-Identifier: Apache-2.0
// Which guest bytes read differently after a repair: the mappings of every layer before and after
// side by side, contents compared only where the mapping differs or the host bytes were patched.
//
// Exempt is what could not be read before: damaged entries, ranges that the medium refuses. Zeros
// and unallocated ranges without a backing file read the same. Stored bytes that differ in place or
// form (compressed, or encrypted by their place in the file) are compared as the strict driver
// reads them, and count as changed where it cannot.
#pragma once

#include <vector>

#include "base/range_set.h"
#include "repair/pass.h"

namespace imgfsck {

struct ImageView {
  const CheckReport& report;
  const ByteSource& bytes;
};

// Ascending within a layer, layers in the order of `before`.
Result<std::vector<LayerRange>> CompareGuests(const ImageView& before, const ImageView& after,
                                              RangeSet patched, const CheckOptions& options);

}  // namespace imgfsck
