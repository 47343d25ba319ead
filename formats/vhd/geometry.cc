// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/geometry.h"

#include <algorithm>

#include "base/checked.h"

namespace imgfsck::vhd {

Geometry GeometryFor(uint64_t sectors) {
  uint64_t total = std::min(sectors, kMaxGeometrySectors);
  uint64_t per_track = 255, heads = 16;
  if (total < 65535ull * 16 * 63) {
    per_track = 17;
    uint64_t tracks = total / per_track;
    heads = std::max<uint64_t>(4, DivRoundUp(tracks, 1024));
    if (tracks >= heads * 1024 || heads > 16) {
      per_track = 31;
      heads = 16;
      tracks = total / per_track;
    }
    if (tracks >= heads * 1024) {
      per_track = 63;
      heads = 16;
    }
  }
  return {static_cast<uint16_t>(total / per_track / heads), static_cast<uint8_t>(heads),
          static_cast<uint8_t>(per_track)};
}

uint64_t RoundUpToGeometry(uint64_t sectors) {
  if (sectors > kMaxGeometrySectors) return sectors;
  for (uint64_t total = sectors; total < kMaxGeometrySectors; ++total) {
    uint64_t product = GeometryFor(total).Sectors();
    if (product >= sectors) return product;
  }
  return kMaxGeometrySectors;
}

std::optional<SizePolicy> ParseSizePolicy(std::string_view text) {
  if (text.empty() || text == "auto") return SizePolicy::kAuto;
  if (text == "chs") return SizePolicy::kChs;
  if (text == "current_size") return SizePolicy::kCurrentSize;
  return std::nullopt;
}

Creator CreatorOf(uint32_t creator_app) {
  switch (creator_app) {
    case kCreatorVpc:
      return {"Virtual PC", true, true, true};
    case kCreatorQemu:
      return {"QEMU", true, true, true};
    case kCreatorQem2:
      return {"QEMU, force_size", true, false, false};
    case kCreatorWin:
      return {"Hyper-V or Windows", true, false, false};
    case kCreatorD2v:
      return {"Disk2vhd", true, false, true};
    case kCreatorD2vSpace:
      return {"Disk2vhd", true, false, false};
    case kCreatorTap:
      return {"XenServer", true, false, false};
    case kCreatorCtxs:
      return {"XenConverter", true, false, false};
    case kCreatorVs:
      return {"Virtual Server", true, false, true};
    case kCreatorVbox:
      return {"VirtualBox", true, false, true};
    default:
      return {"unknown", false, false, true};
  }
}

uint64_t ChsBytes(const Footer& footer) { return footer.geometry.Sectors() * kSectorSize; }

uint64_t VirtualSize(const Footer& footer, SizePolicy policy) {
  uint64_t current = AlignDown(footer.current_size, kSectorSize);
  if (IsSaturated(footer.geometry) || footer.geometry.Sectors() == 0) return current;
  if (policy == SizePolicy::kAuto) {
    policy = CreatorOf(footer.creator_app).by_chs ? SizePolicy::kChs : SizePolicy::kCurrentSize;
  }
  return policy == SizePolicy::kChs ? ChsBytes(footer) : current;
}

uint64_t QemuVirtualSize(const Footer& footer) {
  bool by_chs = CreatorOf(footer.creator_app).qemu_by_chs && !IsSaturated(footer.geometry);
  return by_chs ? ChsBytes(footer) : AlignDown(footer.current_size, kSectorSize);
}

}  // namespace imgfsck::vhd
