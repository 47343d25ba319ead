// SPDX-License-Identifier: Apache-2.0
// A VHD's structures, bytes to structs. Total: every sequence of bytes parses; what is not
// understood stays in `raw` and is written back by encode.h. Judging is left to others.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "formats/vhd/layout.h"

namespace imgfsck::vhd {

using UniqueId = std::array<uint8_t, 16>;
inline bool IsNull(const UniqueId& id) { return id == UniqueId{}; }

struct Geometry {
  uint16_t cylinders = 0;
  uint8_t heads = 0, sectors_per_track = 0;
  constexpr uint64_t Sectors() const { return uint64_t{cylinders} * heads * sectors_per_track; }
  friend bool operator==(const Geometry&, const Geometry&) = default;
};

struct Footer {
  std::array<uint8_t, kFooterSize> raw{};  // as stored; the byte a legacy footer lacks is zero
  uint32_t features = 0, version = 0;
  uint64_t data_offset = 0;
  uint32_t timestamp = 0;  // seconds since kEpoch
  uint32_t creator_app = 0, creator_version = 0, creator_os = 0;
  uint64_t original_size = 0, current_size = 0;
  Geometry geometry;
  uint32_t disk_type = 0;
  uint32_t checksum = 0;
  UniqueId unique_id{};
  uint8_t saved_state = 0, hidden = 0;

  bool HasCookie() const;
  bool ChecksumValid() const;  // tap images up to 1.1: with hidden taken as 0, too
  DiskType type() const { return DiskType{disk_type}; }
  bool TypeKnown() const { return disk_type >= 2 && disk_type <= 4; }
};

struct Locator {
  uint32_t code = 0, data_space = 0, data_length = 0, reserved = 0;
  uint64_t data_offset = 0;
  // Bytes set aside: sectors by the specification, bytes as everybody writes it. Nothing when it
  // can be neither.
  std::optional<uint64_t> SpaceBytes() const;
  friend bool operator==(const Locator&, const Locator&) = default;
};

struct DynHeader {
  std::array<uint8_t, kHeaderSize> raw{};
  uint64_t next_offset = 0, table_offset = 0;
  uint32_t version = 0, max_entries = 0, block_size = 0, checksum = 0;
  UniqueId parent_id{};
  uint32_t parent_timestamp = 0;
  std::array<Locator, kLocatorCount> locators{};

  bool HasCookie() const;
  bool ChecksumValid() const;
  Bytes ParentName() const { return Bytes(raw).subspan(header_at::kParentName, kParentNameSize); }
};

struct BatmapHeader {
  std::array<uint8_t, kBatmapHeaderSize> raw{};
  uint64_t offset = 0;  // of the map, bytes from the start of the file
  uint32_t sectors = 0, version = 0, checksum = 0;
  uint8_t marker = 0, key_flag = 0;

  bool HasCookie() const;
};

Footer ParseFooter(Bytes bytes);              // 511 or 512 bytes
DynHeader ParseHeader(Bytes bytes);           // 1024 bytes
BatmapHeader ParseBatmapHeader(Bytes bytes);  // 512 bytes

// NOT of the sum of all bytes but the four at `checksum_at`.
uint32_t Checksum(Bytes bytes, uint64_t checksum_at);
// The same over a map without a checksum inside; version 1.1 sums signed bytes.
uint32_t MapChecksum(Bytes bytes, uint32_t version);
// For maps that come in pieces: the sum so far, to be inverted at the end.
uint32_t MapSum(uint32_t sum, Bytes bytes, uint32_t version);

// Sector n of a block <-> bit: the most significant bit of a byte comes first.
inline bool BitAt(Bytes bitmap, uint64_t n) { return (bitmap[n / 8] & (0x80u >> (n % 8))) != 0; }
inline void SetBit(MutableBytes bitmap, uint64_t n, bool on) {
  auto mask = static_cast<uint8_t>(0x80u >> (n % 8));
  auto& byte = bitmap[n / 8];
  byte = static_cast<uint8_t>(on ? byte | mask : byte & ~mask);
}

// Bytes of a block's sector bitmap in the file, padding included; 0 for a block size below 4096.
constexpr uint64_t BitmapBytes(uint64_t block_size) {
  return (block_size / (8 * kSectorSize) + kSectorSize - 1) / kSectorSize * kSectorSize;
}
static_assert(BitmapBytes(kDefaultBlockSize) == 512 && BitmapBytes(512 * 1024) == 512);

std::string FourCcText(uint32_t code);  // "W2ru"; bytes that do not print as \xNN

}  // namespace imgfsck::vhd
