// SPDX-License-Identifier: Apache-2.0
// The qcow2 format's numbers: offsets, sizes and bits, with the names of the published
// specification (docs/interop/qcow2 of QEMU). Everything on disk is big-endian. Reads nothing.
#pragma once

#include <cstdint>

#include "base/checked.h"

namespace imgfsck::qcow2 {

inline constexpr uint32_t kMagic = 0x514649FB;  // "QFI\xFB"

// Header fields, section 1 of the sheet.
inline constexpr uint64_t kHeaderLengthV2 = 72;
inline constexpr uint64_t kHeaderLengthV3 = 104;       // the least a v3 header has
inline constexpr uint64_t kHeaderLengthCurrent = 112;  // with compression_type
inline constexpr unsigned kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr unsigned kMinClusterBitsExtendedL2 = 14;
inline constexpr unsigned kMaxRefcountOrder = 6;
inline constexpr uint32_t kMaxBackingNameLength = 1023;
inline constexpr uint32_t kMaxBackingFormatLength = 15;

enum CryptMethod : uint32_t { kCryptNone = 0, kCryptAes = 1, kCryptLuks = 2 };
enum CompressionType : uint8_t { kDeflate = 0, kZstd = 1 };

inline constexpr uint64_t kIncompatDirty = 1, kIncompatCorrupt = 2, kIncompatDataFile = 4,
                          kIncompatCompression = 8, kIncompatExtendedL2 = 16, kIncompatKnown = 0x1F;
inline constexpr uint64_t kCompatLazyRefcounts = 1, kCompatKnown = 1;
inline constexpr uint64_t kAutoclearBitmaps = 1, kAutoclearRawData = 2, kAutoclearKnown = 3;

// Header extensions, section 2.
inline constexpr uint32_t kExtEnd = 0, kExtBackingFormat = 0xE2792ACA,
                          kExtFeatureNames = 0x6803F857, kExtBitmaps = 0x23852875,
                          kExtEncryption = 0x0537BE77, kExtDataFile = 0x44415441;
inline constexpr uint32_t kFeatureNameSize = 48;
inline constexpr uint32_t kBitmapsExtLength = 24, kEncryptionExtLength = 16;

// Limits that QEMU 7.2 enforces, section 12.
inline constexpr uint64_t kMaxL1Bytes = 32 << 20;
inline constexpr uint64_t kMaxRefcountTableBytes = 8 << 20;
inline constexpr uint64_t kMaxSnapshots = 65536;
inline constexpr uint64_t kMaxSnapshotTableBytes = 64 << 20;
inline constexpr uint32_t kMaxSnapshotExtra = 1024;
inline constexpr uint32_t kMinSnapshotExtraV3 = 16;
inline constexpr uint64_t kMaxBitmaps = 65535;
inline constexpr uint64_t kMaxBitmapDirectoryBytes = 67107840;
inline constexpr uint64_t kMaxBitmapTableEntries = 134217728;
inline constexpr uint64_t kMaxBitmapBytes = 512 << 20;
inline constexpr uint32_t kMaxBitmapName = 1023;
inline constexpr unsigned kMinGranularityBits = 9, kMaxGranularityBits = 31;

// L1, L2 and refcount table entries, section 4.
inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kZeroFlag = 1;
inline constexpr uint64_t kOffsetMask = 0x00FFFFFFFFFFFE00;  // bits 9–55
inline constexpr uint64_t kL1Reserved = 0x7F000000000001FF;
inline constexpr uint64_t kL2Reserved = 0x3F000000000001FE;
inline constexpr uint64_t kRefcountTableReserved = 0x1FF;
inline constexpr uint64_t kBitmapEntryReserved = 0xFF000000000001FE;
inline constexpr uint64_t kBitmapAllOnes = 1;
static_assert((kL1Reserved | kOffsetMask | kCopied) == ~uint64_t{0});
static_assert((kL2Reserved | kOffsetMask | kCopied | kCompressed | kZeroFlag) == ~uint64_t{0});
static_assert((kBitmapEntryReserved | kOffsetMask | kBitmapAllOnes) == ~uint64_t{0});

inline constexpr unsigned kSubclusters = 32;
inline constexpr uint64_t kCompressedSector = 512;
inline constexpr uint64_t kMaxHostOffset = uint64_t{1} << 56;

// What follows from a header's cluster_bits, refcount_order and feature bits (section 5).
struct Geometry {
  unsigned cluster_bits = 16;
  uint64_t cluster_size = 65536;  // bytes
  bool extended_l2 = false;
  unsigned l2_entry_size = 8;  // bytes; 16 with extended L2 entries
  uint64_t l2_entries = 8192;  // of one L2 table
  uint64_t l2_span = 0;        // guest bytes that one L2 table maps
  unsigned refcount_order = 4;
  uint64_t block_entries = 32768;  // counts in one refcount block
  unsigned compressed_bits = 54;   // x: where the sector count starts

  static constexpr Geometry Make(unsigned cluster_bits, bool extended_l2, unsigned refcount_order) {
    Geometry g;
    g.cluster_bits = cluster_bits;
    g.cluster_size = uint64_t{1} << cluster_bits;
    g.extended_l2 = extended_l2;
    g.l2_entry_size = extended_l2 ? 16 : 8;
    g.l2_entries = g.cluster_size / g.l2_entry_size;
    g.l2_span = g.cluster_size * g.l2_entries;
    g.refcount_order = refcount_order;
    g.block_entries = g.cluster_size * 8 >> refcount_order;
    g.compressed_bits = 62 - (cluster_bits - 8);
    return g;
  }
  constexpr uint64_t ClustersOf(uint64_t bytes) const { return DivRoundUp(bytes, cluster_size); }
  constexpr uint64_t MinL1Entries(uint64_t size) const { return DivRoundUp(size, l2_span); }
  constexpr uint64_t MaxRefcount() const {
    return refcount_order >= 6 ? ~uint64_t{0}
                               : (uint64_t{1} << (uint64_t{1} << refcount_order)) - 1;
  }
};

// The span a compressed L2 entry points at.
struct CompressedSpan {
  uint64_t offset = 0;  // of the stream's first byte in the file
  uint64_t length = 0;  // bytes that may belong to it, to the end of its last sector
  uint64_t end() const { return offset + length; }
};

constexpr CompressedSpan DecodeCompressed(const Geometry& g, uint64_t entry) {
  uint64_t offset = entry & ((uint64_t{1} << g.compressed_bits) - 1) & (kMaxHostOffset - 1);
  uint64_t sectors = (entry >> g.compressed_bits) & ((uint64_t{1} << (g.cluster_bits - 8)) - 1);
  return {offset, (sectors + 1) * kCompressedSector - (offset & (kCompressedSector - 1))};
}
// Bits 56 to x-1 of a compressed entry, which must be zero (clusters below 16 KiB only).
constexpr uint64_t CompressedReserved(const Geometry& g) {
  return ((uint64_t{1} << g.compressed_bits) - 1) & ~(kMaxHostOffset - 1);
}
static_assert(DecodeCompressed(Geometry::Make(16, false, 4), 0x4000000000050000).length == 512);

}  // namespace imgfsck::qcow2
