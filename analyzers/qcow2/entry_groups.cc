// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/entry_groups.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/bytes.h"
#include "base/clones.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {
namespace {

// Eight clusters' bits as eight 16-bit counts in file order.
struct ExpandTable {
  std::array<std::array<uint16_t, 8>, 256> rows{};
  constexpr ExpandTable() {
    for (unsigned byte = 0; byte < 256; ++byte) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        rows[byte][bit] = (byte >> bit & 1) != 0 ? 0x0100 : 0;  // 1, big-endian
      }
    }
  }
};
constexpr ExpandTable kExpand;

}  // namespace

IMGFSCK_CLONES void ScanGroup(const uint8_t* entries, uint64_t bad_mask, unsigned cluster_bits,
                              GroupScan* scan) {
  uint64_t bad = 0, any = 0, all = ~uint64_t{0};
  uint32_t min = ~uint32_t{0}, max = 0;
  for (uint64_t i = 0; i < kGroup; ++i) {
    const uint64_t value = LoadBe<uint64_t>(entries + 8 * i);
    any |= value;
    all &= value;
    bad |= value & bad_mask;
    const auto cluster = static_cast<uint32_t>((value & kOffsetMask) >> cluster_bits);
    scan->cluster[i] = cluster;
    min = std::min(min, cluster);
    max = std::max(max, cluster);
  }
  uint32_t breaks = 0;
  for (uint64_t i = 1; i < kGroup; ++i) {
    breaks += scan->cluster[i] != scan->cluster[i - 1] + 1 ? 1 : 0;
  }
  scan->bad = bad;
  scan->any = any;
  scan->all = all;
  scan->min = min;
  scan->max = max;
  scan->breaks = breaks;
}

IMGFSCK_CLONES bool IsRun(const uint8_t* entries, uint64_t step) {
  std::array<uint64_t, kGroup + 1> values;
  for (uint64_t i = 0; i < kGroup; ++i) values[i] = LoadBe<uint64_t>(entries + 8 * i);
  values[kGroup] = values[kGroup - 1] + step;
  uint64_t difference = 0;
  for (uint64_t i = 0; i < kGroup; ++i) difference |= (values[i + 1] - values[i]) ^ step;
  return difference == 0;
}

bool Equal16(const uint8_t* counts, uint64_t bits) {
  uint64_t difference = 0;
  for (unsigned i = 0; i < 8; ++i) {
    uint64_t have[2], want[2];
    std::memcpy(have, counts + 16 * i, 16);
    std::memcpy(want, kExpand.rows[bits >> (8 * i) & 0xFF].data(), 16);
    difference |= (have[0] ^ want[0]) | (have[1] ^ want[1]);
  }
  return difference == 0;
}

IMGFSCK_CLONES bool EqualShared16(const uint8_t* counts, uint64_t bits, const uint8_t* extras) {
  std::array<uint16_t, kGroup> want;
  for (unsigned i = 0; i < 8; ++i) {
    std::memcpy(&want[8 * i], kExpand.rows[bits >> (8 * i) & 0xFF].data(), 16);
  }
  uint16_t difference = 0;
  uint8_t most = 0;
  for (uint64_t i = 0; i < kGroup; ++i) {
    most = std::max(most, extras[i]);
    // Counts of up to 255 are their lower byte alone, which lies second in the file.
    const auto sum = static_cast<uint16_t>((want[i] >> 8) + extras[i]);
    difference |= static_cast<uint16_t>(LoadBe<uint16_t>(counts + 2 * i) ^ sum);
  }
  return difference == 0 && most != 0xFF;
}

IMGFSCK_CLONES bool AddTo64(uint8_t* bytes, uint64_t add) {
  uint8_t most = 0;
  for (uint64_t i = 0; i < kGroup; ++i) most = std::max(most, bytes[i]);
  if (add >= uint64_t{0xFF} - most) return false;
  for (uint64_t i = 0; i < kGroup; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] + add);
  return true;
}

}  // namespace imgfsck::qcow2
