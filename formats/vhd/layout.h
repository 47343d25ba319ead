// SPDX-License-Identifier: Apache-2.0
// Where the fields of a VHD's structures lie, with the names of Microsoft's specification 1.0 and,
// for the batmap, of XenServer. All integers are big endian, offsets count from the structure's
// first byte. Nothing here reads or judges anything.
#pragma once

#include <cstdint>
#include <string_view>

namespace imgfsck::vhd {

inline constexpr uint64_t kSectorSize = 512;  // whatever the guest or the host uses
inline constexpr uint64_t kFooterSize = 512;
inline constexpr uint64_t kLegacyFooterSize = 511;  // before Virtual PC 2004
inline constexpr uint64_t kHeaderSize = 1024;
inline constexpr uint64_t kBatmapHeaderSize = 512;

inline constexpr std::string_view kFooterCookie = "conectix";
inline constexpr std::string_view kPoisonCookie = "v_poison";  // a journalled resize is under way
inline constexpr std::string_view kHeaderCookie = "cxsparse";
inline constexpr std::string_view kBatmapCookie = "tdbatmap";
inline constexpr uint8_t kKilledByte = 0xC7;  // tapdisk fills an open footer with it
static_assert(kFooterCookie.size() == 8 && kPoisonCookie.size() == 8);
static_assert(kHeaderCookie.size() == 8 && kBatmapCookie.size() == 8);

namespace footer_at {
inline constexpr uint64_t kCookie = 0, kFeatures = 8, kVersion = 12, kDataOffset = 16,
                          kTimestamp = 24, kCreatorApp = 28, kCreatorVersion = 32, kCreatorOs = 36,
                          kOriginalSize = 40, kCurrentSize = 48, kCylinders = 56, kHeads = 58,
                          kSectorsPerTrack = 59, kDiskType = 60, kChecksum = 64, kUniqueId = 68,
                          kSavedState = 84, kHidden = 85, kReserved = 86;
}  // namespace footer_at
static_assert(footer_at::kReserved < kLegacyFooterSize);

namespace header_at {
inline constexpr uint64_t kCookie = 0, kNextOffset = 8, kTableOffset = 16, kVersion = 24,
                          kMaxEntries = 28, kBlockSize = 32, kChecksum = 36, kParentId = 40,
                          kParentTimestamp = 56, kReserved1 = 60, kParentName = 64, kLocators = 576,
                          kReserved2 = 768;
}  // namespace header_at
inline constexpr uint64_t kParentNameSize = 512;  // bytes of UTF-16BE
inline constexpr uint64_t kLocatorCount = 8, kLocatorSize = 24;
static_assert(header_at::kParentName + kParentNameSize == header_at::kLocators);
static_assert(header_at::kLocators + kLocatorCount * kLocatorSize == header_at::kReserved2);

namespace locator_at {
inline constexpr uint64_t kCode = 0, kDataSpace = 4, kDataLength = 8, kReserved = 12,
                          kDataOffset = 16;
}  // namespace locator_at

namespace batmap_at {
inline constexpr uint64_t kCookie = 0, kOffset = 8, kSectors = 16, kVersion = 20, kChecksum = 24,
                          kMarker = 28, kKeyFlag = 29, kKeyNonce = 30, kKeyHash = 62,
                          kReserved = 94;
}  // namespace batmap_at

inline constexpr uint32_t kFeatureTemporary = 1, kFeatureReserved = 2;
inline constexpr uint32_t kVersion1 = 0x00010000;
inline constexpr uint32_t kBatmapVersionSigned = 0x00010001;  // sums signed bytes
inline constexpr uint32_t kBatmapVersion = 0x00010002;        // the newest known

enum class DiskType : uint32_t { kNone = 0, kFixed = 2, kDynamic = 3, kDifferencing = 4 };

inline constexpr uint32_t kUnallocated = 0xFFFFFFFF;       // a BAT entry without a block
inline constexpr uint64_t kNoOffset = 0xFFFFFFFFFFFFFFFF;  // "all ones": there is no such thing
inline constexpr uint64_t kNoOffsetOfSpec = 0xFFFFFFFF;    // what the specification prints
inline constexpr uint64_t kDefaultBlockSize = 0x200000;
inline constexpr uint64_t kDefaultTableOffset = kFooterSize + kHeaderSize;
inline constexpr uint64_t kMinBlockSize = 4096;      // below it readers disagree on bitmaps
inline constexpr uint64_t kMaxSectors = 0xFF000000;  // of a disk: 2040 GiB, as QEMU has it
inline constexpr int64_t kEpoch = 946684800;         // 2000-01-01T00:00:00Z in Unix time

// Four characters as they stand in the file.
constexpr uint32_t FourCc(std::string_view text) {
  uint32_t code = 0;
  for (char c : text) code = code << 8 | static_cast<uint8_t>(c);
  return code;
}
inline constexpr uint32_t kLocatorNone = 0, kLocatorWi2r = FourCc("Wi2r"),
                          kLocatorWi2k = FourCc("Wi2k"), kLocatorW2ru = FourCc("W2ru"),
                          kLocatorW2ku = FourCc("W2ku"), kLocatorMac = FourCc("Mac "),
                          kLocatorMacX = FourCc("MacX");
static_assert(kLocatorW2ru == 0x57327275 && kLocatorMacX == 0x4D616358);

inline constexpr uint32_t kCreatorVpc = FourCc("vpc "), kCreatorVs = FourCc("vs  "),
                          kCreatorQemu = FourCc("qemu"), kCreatorQem2 = FourCc("qem2"),
                          kCreatorWin = FourCc("win "), kCreatorVbox = FourCc("vbox"),
                          kCreatorD2vSpace = FourCc("d2v "), kCreatorCtxs = FourCc("CTXS"),
                          kCreatorD2v = FourCc({"d2v\0", 4}), kCreatorTap = FourCc({"tap\0", 4});
inline constexpr uint32_t kHostWindows = FourCc("Wi2k"), kHostMac = FourCc("Mac ");

}  // namespace imgfsck::vhd
