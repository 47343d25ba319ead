// SPDX-License-Identifier: Apache-2.0
// The qcow version 1 format's numbers: offsets, sizes and bits (sheet qcow1, sections 1, 2 and 7).
// Fields are found by offset, never by laying a struct over bytes. All big-endian. Reads nothing.
#pragma once

#include <cstdint>

#include "base/checked.h"

namespace imgfsck::qcow1 {

inline constexpr uint32_t kMagic = 0x514649FB;  // "QFI\xFB"
inline constexpr uint32_t kVersion = 1;
inline constexpr uint64_t kHeaderLength = 48;  // bytes

inline constexpr unsigned kMinClusterBits = 9, kMaxClusterBits = 16;
inline constexpr unsigned kMinL2Bits = 6, kMaxL2Bits = 13;
inline constexpr uint32_t kMaxBackingNameLength = 1023;
inline constexpr uint64_t kMaxL1Entries = 268435455;  // QEMU refuses more
inline constexpr uint64_t kMinSize = 512;             // smaller disks have no sector

enum CryptMethod : uint32_t { kCryptNone = 0, kCryptAes = 1 };

// The tapdisk extension: right behind the header when the L1 table is 4 KiB aligned.
inline constexpr uint32_t kXenMagic = 0x58454EFB;  // "XEN\xFB"
inline constexpr uint64_t kXenHeaderOffset = kHeaderLength;
inline constexpr uint64_t kXenHeaderLength = 16;  // bytes
inline constexpr uint64_t kXenL1Alignment = 4096;
inline constexpr uint32_t kXenSparse = 1, kXenBigEndianL1 = 2;

inline constexpr uint64_t kTopBit = uint64_t{1} << 63;  // compressed, in an L2 entry; no flag in L1

// What follows from a header's cluster_bits, l2_bits and size (section 2).
struct Geometry {
  unsigned cluster_bits = 12;
  unsigned l2_bits = 9;
  uint64_t cluster_size = 4096;  // bytes
  uint64_t l2_entries = 512;     // of one L2 table
  uint64_t l2_bytes = 4096;
  uint64_t span = 0;          // guest bytes that one L2 table maps
  uint64_t virtual_size = 0;  // bytes, whole sectors only, as QEMU has it
  uint64_t l1_entries = 0;    // derived from the size, not stored

  static constexpr Geometry Make(unsigned cluster_bits, unsigned l2_bits, uint64_t size) {
    Geometry g;
    g.cluster_bits = cluster_bits;
    g.l2_bits = l2_bits;
    g.cluster_size = uint64_t{1} << cluster_bits;
    g.l2_entries = uint64_t{1} << l2_bits;
    g.l2_bytes = 8 * g.l2_entries;
    g.span = g.cluster_size * g.l2_entries;
    g.virtual_size = AlignDown(size, 512);
    g.l1_entries = DivRoundUp(size, g.span);
    return g;
  }
  constexpr uint64_t ClustersOf(uint64_t bytes) const { return DivRoundUp(bytes, cluster_size); }
  constexpr uint64_t l1_bytes() const { return SaturatingMul(l1_entries, 8); }
};

// One L2 entry, decoded (section 2).
struct Entry {
  uint64_t raw = 0;

  constexpr bool empty() const { return raw == 0; }
  constexpr bool compressed() const { return (raw & kTopBit) != 0; }
  // Of the cluster, or of the first byte of the compressed stream.
  constexpr uint64_t offset(const Geometry& g) const {
    return compressed() ? raw & ((uint64_t{1} << (63 - g.cluster_bits)) - 1) : raw;
  }
  // Bytes in the file: of a stream the exact length stored (0 is damage).
  constexpr uint64_t length(const Geometry& g) const {
    return compressed() ? raw >> (63 - g.cluster_bits) & (g.cluster_size - 1) : g.cluster_size;
  }
  static constexpr Entry Compressed(const Geometry& g, uint64_t offset, uint64_t length) {
    return {kTopBit | length << (63 - g.cluster_bits) | offset};
  }
};
static_assert(Entry{0xBC40000000002000}.offset(Geometry::Make(12, 9, 0)) == 0x2000);
static_assert(Entry{0xBC40000000002000}.length(Geometry::Make(12, 9, 0)) == 1928);
static_assert(Entry::Compressed(Geometry::Make(12, 9, 0), 0x2000, 1928).raw == 0xBC40000000002000);

// The first offset that a compressed entry cannot express.
constexpr uint64_t CompressedLimit(const Geometry& g) {
  return uint64_t{1} << (63 - g.cluster_bits);
}

}  // namespace imgfsck::qcow1
