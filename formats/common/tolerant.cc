// SPDX-License-Identifier: Apache-2.0
#include "formats/common/tolerant.h"

#include <algorithm>

#include "base/checked.h"

namespace imgfsck {

void ReadTolerant(const ByteSource& source, uint64_t offset, MutableBytes buffer,
                  std::vector<HostRange>* bad) {
  while (!buffer.empty()) {
    auto status = ReadPadded(source, offset, buffer);
    if (status) return;
    // The medium failed somewhere: keep what lies before, zero the sector, go on behind it.
    uint64_t at = status.error().offset.value_or(offset);
    at = std::clamp(at, offset, offset + buffer.size() - 1);
    uint64_t good = at - offset;
    if (good > 0 && !ReadPadded(source, offset, buffer.first(good))) {
      at = offset;  // no progress that way: give up the first sector
      good = 0;
    }
    uint64_t skip = std::min<uint64_t>(AlignDown(at, kSector) + kSector - at, buffer.size() - good);
    std::ranges::fill(buffer.subspan(good, skip), uint8_t{0});
    if (!bad->empty() && bad->back().end() == at) {
      bad->back().length += skip;
    } else {
      bad->push_back(MakeHostRange(at, skip));
    }
    offset += good + skip;
    buffer = buffer.subspan(good + skip);
  }
}

}  // namespace imgfsck
