// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps (sheet, section 9): the extension, the directory and the tables.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/qcow2/header.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

inline constexpr uint32_t kBitmapInUse = 1, kBitmapAuto = 2, kBitmapExtraCompatible = 4,
                          kBitmapFlagsKnown = 7;

struct BitmapsExtension {
  uint32_t nb_bitmaps = 0, reserved = 0;
  uint64_t directory_size = 0, directory_offset = 0;
};
std::optional<BitmapsExtension> ParseBitmapsExtension(const Extension& record);
ByteVector EncodeBitmapsExtension(const BitmapsExtension& extension);

struct Bitmap {
  uint64_t host_offset = 0;  // of the directory entry
  uint64_t length = 0;       // of the entry with padding
  uint64_t table_offset = 0;
  uint32_t table_size = 0;  // entries
  uint32_t flags = 0;
  uint8_t type = 0, granularity_bits = 0;
  uint32_t extra_data_size = 0;
  std::string name;
  bool padding_zero = true;

  bool in_use() const { return (flags & kBitmapInUse) != 0; }
};

// Entries that a bitmap of this granularity needs for a disk of `size` bytes; nothing when the
// granularity is out of range.
std::optional<uint64_t> BitmapTableEntries(uint64_t size, unsigned granularity_bits,
                                           uint64_t cluster_size);

struct BitmapDirectory {
  std::vector<Bitmap> entries;
  uint64_t offset = 0, size = 0;  // as the extension says
  uint64_t parsed_bytes = 0;      // that the entries take
  bool readable = false;          // aligned, non-zero and inside the file
  bool broken = false;            // an entry does not fit: parsing stopped after `entries`
  std::optional<Bitmap> misfit;   // that entry, as far as its fixed part goes
};
BitmapDirectory ParseBitmapDirectory(const ByteSource& source, const Geometry& geometry,
                                     const BitmapsExtension& extension);
ByteVector EncodeBitmapEntry(const Bitmap& bitmap);  // with padding to 8; without extra data

}  // namespace imgfsck::qcow2
