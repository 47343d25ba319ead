// SPDX-License-Identifier: Apache-2.0
// The nine header layouts that programs have written under the one COW signature (sheet cow,
// sections 1 and 2), and where bitmap and data lie in each. Reads nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/checked.h"

namespace imgfsck::cow {

inline constexpr uint32_t kMagic = 0x4F4F4F4D;  // "OOOM" in big-endian files
inline constexpr uint64_t kLongestHeader = 4136;
inline constexpr uint32_t kSectorSize = 512;  // what every known writer uses
inline constexpr uint32_t kLargestSector = 65536;
inline constexpr uint32_t kPageAlignment = 4096;
inline constexpr uint64_t kMaxDataOffset = uint64_t{1} << 31;  // a signed int in User-Mode Linux

enum class LayoutId : uint8_t {
  kUml1,
  kUml1Wide,
  kUml2,
  kUml2Wide,
  kUml2Long,
  kQemu32,
  kQemu64,
  kUml3,
  kUml3Broken,
};

// Offsets in bytes; 0: the layout has no such field.
struct Layout {
  LayoutId id;
  std::string_view name;
  unsigned version;
  uint32_t version_offset;
  uint32_t path_offset, path_length;
  uint32_t mtime_offset;
  bool wide_mtime;  // 8 bytes in host order (version 1 only; elsewhere the first 4 count)
  uint32_t size_offset, sectorsize_offset, alignment_offset, format_offset;
  uint32_t header_length;
  bool qemu;    // else User-Mode Linux
  bool native;  // what readers of today's machines accept

  constexpr bool host_order() const { return version == 1; }  // else big-endian
};

inline constexpr Layout kLayouts[] = {
    {LayoutId::kUml1, "uml-v1", 1, 4, 8, 256, 264, false, 268, 276, 0, 0, 280, false, true},
    {LayoutId::kUml1Wide, "uml-v1-64", 1, 4, 8, 256, 264, true, 272, 280, 0, 0, 288, false, false},
    {LayoutId::kUml2, "uml-v2", 2, 4, 8, 4096, 4104, false, 4108, 4116, 0, 0, 4120, false, true},
    {LayoutId::kUml2Wide, "uml-v2-64", 2, 4, 8, 4096, 4104, false, 4112, 4120, 0, 0, 4128, false,
     false},
    {LayoutId::kUml2Long, "uml-v2-long", 2, 8, 16, 4096, 4112, false, 4120, 4128, 0, 0, 4136, false,
     false},
    {LayoutId::kQemu32, "qemu-i386", 2, 4, 8, 1024, 1032, false, 1036, 1044, 0, 0, 1048, true,
     false},
    {LayoutId::kQemu64, "qemu-x86-64", 2, 4, 8, 1024, 1032, false, 1040, 1048, 0, 0, 1056, true,
     true},
    {LayoutId::kUml3, "uml-v3", 3, 4, 32, 4096, 8, false, 12, 20, 24, 28, 4128, false, true},
    {LayoutId::kUml3Broken, "uml-v3-broken", 3, 4, 36, 4096, 8, false, 16, 24, 28, 32, 4136, false,
     false},
};

constexpr const Layout& LayoutOf(LayoutId id) { return kLayouts[static_cast<size_t>(id)]; }
static_assert([] {
  for (size_t i = 0; i < std::size(kLayouts); ++i) {
    if (static_cast<size_t>(kLayouts[i].id) != i) return false;
  }
  return true;
}());

// Where things lie; all from size, sector size and alignment.
struct Geometry {
  bool valid = false;          // no overflow, and the fields are what they can be
  uint64_t sector_size = 512;  // bytes
  uint64_t virtual_size = 0;   // bytes; QEMU's files: whole sectors only
  uint64_t sectors = 0;        // the last one may be cut
  uint64_t bitmap_offset = 0;
  uint64_t bitmap_bytes = 0;  // as the writer counted them
  uint64_t data_offset = 0;

  constexpr uint64_t bitmap_end() const { return bitmap_offset + bitmap_bytes; }
  constexpr uint64_t data_end() const { return data_offset + virtual_size; }
  constexpr uint64_t HostOf(uint64_t sector) const { return data_offset + sector * sector_size; }
  // Versions 1 and 2 forget up to seven bits: those sectors use the byte behind the bitmap.
  constexpr uint64_t bits() const { return 8 * bitmap_bytes; }
  constexpr bool tail_has_no_bits() const { return sectors > bits(); }
  // That byte is then the first one of the data.
  constexpr bool tail_is_data() const { return tail_has_no_bits() && bitmap_end() >= data_offset; }
  // Sectors whose bit can be used.
  constexpr uint64_t tracked_sectors() const { return tail_is_data() ? bits() : sectors; }
  // Bytes in which used bits lie.
  constexpr uint64_t used_bitmap_bytes() const { return DivRoundUp(tracked_sectors(), 8); }
};

constexpr bool IsPowerOfTwo(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }
constexpr bool SectorSizeIsSane(uint64_t size) {
  return IsPowerOfTwo(size) && size >= kSectorSize && size <= kLargestSector;
}
constexpr bool AlignmentIsSane(uint64_t alignment, uint64_t sector_size) {
  return IsPowerOfTwo(alignment) && alignment >= sector_size && alignment <= kMaxDataOffset;
}

constexpr Geometry MakeGeometry(const Layout& layout, uint64_t size, uint64_t sector_size,
                                uint64_t alignment) {
  Geometry g;
  bool aligned = layout.alignment_offset == 0 || AlignmentIsSane(alignment, sector_size);
  if (!SectorSizeIsSane(sector_size) || !aligned || size > (uint64_t{1} << 62)) return g;
  g.sector_size = sector_size;
  g.virtual_size = layout.qemu ? AlignDown(size, sector_size) : size;
  g.sectors = DivRoundUp(g.virtual_size, sector_size);
  uint64_t header = layout.header_length;
  g.bitmap_offset = layout.version == 3 ? AlignUp(header, alignment) : header;
  bool floors = !layout.qemu && layout.version < 3;
  g.bitmap_bytes = floors ? (size + sector_size - 1) / (8 * sector_size) : DivRoundUp(g.sectors, 8);
  g.data_offset = AlignUp(g.bitmap_end(), layout.version == 3 ? alignment : sector_size);
  g.valid = true;
  return g;
}
// The image of the sheet's section 2.
static_assert(MakeGeometry(LayoutOf(LayoutId::kUml3), 2560100, 512, 4096).bitmap_bytes == 626);
static_assert(MakeGeometry(LayoutOf(LayoutId::kUml3), 2560100, 512, 4096).data_offset == 12288);
static_assert(MakeGeometry(LayoutOf(LayoutId::kUml2), 3911 * 512, 512, 0).tail_is_data());
static_assert(!MakeGeometry(LayoutOf(LayoutId::kUml2), 3904 * 512, 512, 0).tail_has_no_bits());

}  // namespace imgfsck::cow
