// SPDX-License-Identifier: Apache-2.0
// Cylinders, heads, sectors; and which of a footer's two sizes, CHS product or current_size, is the
// disk's (sheet §5: it depends on the program that wrote the image).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "formats/vhd/parse.h"

namespace imgfsck::vhd {

inline constexpr Geometry kSaturatedGeometry{65535, 16, 255};
inline constexpr uint64_t kMaxGeometrySectors = 65535ull * 16 * 255;
static_assert(kSaturatedGeometry.Sectors() == kMaxGeometrySectors);

// The specification's algorithm. Its product may be up to 4079 sectors below `sectors`.
Geometry GeometryFor(uint64_t sectors);
// The smallest disk of at least `sectors` whose geometry is exact, as QEMU rounds; `sectors` itself
// above the largest geometry.
uint64_t RoundUpToGeometry(uint64_t sectors);
// What rounding a disk up to a geometry adds at most, as the 2012 QEMU did without enlarging the
// file.
inline constexpr uint64_t kMostRoundingUp = 4080;
inline bool IsSaturated(const Geometry& geometry) { return geometry == kSaturatedGeometry; }

enum class SizePolicy { kAuto, kChs, kCurrentSize };
std::optional<SizePolicy> ParseSizePolicy(std::string_view text);

// What is known of a program by its creator_app.
struct Creator {
  std::string_view name;  // "Virtual PC"; "unknown"
  bool known = false;
  bool by_chs = false;      // its images' size is the CHS product
  bool qemu_by_chs = true;  // QEMU reads its images by CHS
};
Creator CreatorOf(uint32_t creator_app);

uint64_t ChsBytes(const Footer& footer);
uint64_t VirtualSize(const Footer& footer, SizePolicy policy);  // bytes, a multiple of 512
uint64_t QemuVirtualSize(const Footer& footer);                 // as QEMU 7.2 reads it

}  // namespace imgfsck::vhd
