// SPDX-License-Identifier: Apache-2.0
// 64 table entries or counts at once, without a branch per entry. Knows no image.
#pragma once

#include <array>
#include <cstdint>

namespace imgfsck::qcow2 {

inline constexpr uint64_t kGroup = 64;  // entries

// What 64 L2 entries have in common, and their cluster numbers.
struct GroupScan {
  uint64_t bad = 0;  // bits of the mask that any has
  uint64_t any = 0, all = ~uint64_t{0};
  uint32_t min = ~uint32_t{0}, max = 0;  // cluster
  uint64_t breaks = 0;                   // clusters that do not follow the one before
  std::array<uint32_t, kGroup> cluster;
};
void ScanGroup(const uint8_t* entries, uint64_t bad_mask, unsigned cluster_bits, GroupScan* scan);

// Each of 64 entries is the one before plus `step`.
bool IsRun(const uint8_t* entries, uint64_t step);

// 64 counts of 16 bits equal the 64 bits.
bool Equal16(const uint8_t* counts, uint64_t bits);
// The same with the further references that each cluster has; false where one has 255 of them.
bool EqualShared16(const uint8_t* counts, uint64_t bits, const uint8_t* extras);

// Adds to 64 bytes, unless one of them would get to 255: then it does nothing and returns false.
bool AddTo64(uint8_t* bytes, uint64_t add);

}  // namespace imgfsck::qcow2
