// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/guest_signs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/checked.h"
#include "base/units.h"

namespace imgfsck {
namespace {

bool TextAt(Bytes bytes, size_t offset, std::string_view text) {
  return offset + text.size() <= bytes.size() && AsText(bytes.subspan(offset, text.size())) == text;
}

// UEFI: the header in block 1 names the block of its copy, which is the disk's last.
std::optional<SizeSign> Gpt(Bytes head) {
  for (uint64_t block : {uint64_t{512}, uint64_t{4096}}) {
    if (!TextAt(head, block, "EFI PART") || LeAt<uint64_t>(head, block + 24) != 1) continue;
    uint64_t copy = LeAt<uint64_t>(head, block + 32), last = LeAt<uint64_t>(head, block + 48);
    auto end = CheckedMul(SaturatingAdd(copy, 1), block);
    if (copy <= last || !end) continue;
    return SizeSign{*end, true, "the partition table (GPT)"};
  }
  return std::nullopt;
}

std::optional<SizeSign> Fat(Bytes head) {
  bool ntfs = TextAt(head, 3, "NTFS    "), exfat = TextAt(head, 3, "EXFAT   ");
  bool fat = TextAt(head, 54, "FAT") || TextAt(head, 82, "FAT32");
  uint64_t sector = LeAt<uint16_t>(head, 11);
  if (exfat) return SizeSign{SaturatingMul(LeAt<uint64_t>(head, 72), kSector), false, "exFAT"};
  if ((!ntfs && !fat) || sector < 512 || sector > 4096 || (sector & (sector - 1)) != 0) return {};
  // NTFS keeps its copy of the boot sector in the one behind its own.
  if (ntfs) {
    uint64_t sectors = SaturatingAdd(LeAt<uint64_t>(head, 40), 1);
    return SizeSign{SaturatingMul(sectors, sector), false, "NTFS"};
  }
  uint64_t sectors = LeAt<uint16_t>(head, 19);
  if (sectors == 0) sectors = LeAt<uint32_t>(head, 32);
  return SizeSign{sectors * sector, false, "a FAT file system"};
}

// The end of the last partition of a PC partition table.
std::optional<SizeSign> Mbr(Bytes head) {
  if (head[510] != 0x55 || head[511] != 0xAA || Fat(head)) return std::nullopt;
  uint64_t end = 0;
  for (size_t i = 0; i < 4; ++i) {
    Bytes entry = head.subspan(446 + 16 * i, 16);
    if ((entry[0] & 0x7F) != 0) return std::nullopt;  // no partition table: boot code of something
    uint64_t start = LeAt<uint32_t>(entry, 8), count = LeAt<uint32_t>(entry, 12);
    if (entry[4] == 0 || entry[4] == 0xEE || start == 0) continue;
    end = std::max(end, (start + count) * kSector);
  }
  if (end == 0) return std::nullopt;
  return SizeSign{end, false, "the partition table (MBR)"};
}

std::optional<SizeSign> Ext(Bytes head) {
  Bytes super = head.subspan(1024, 1024);
  uint32_t log_block = LeAt<uint32_t>(super, 24);
  if (LeAt<uint16_t>(super, 56) != 0xEF53 || log_block > 6) return std::nullopt;
  uint64_t blocks = LeAt<uint32_t>(super, 4);
  if ((LeAt<uint32_t>(super, 96) & 0x80) != 0) {
    blocks |= uint64_t{LeAt<uint32_t>(super, 336)} << 32;
  }
  return SizeSign{SaturatingMul(blocks, uint64_t{1024} << log_block), false, "an ext file system"};
}

std::optional<SizeSign> Xfs(Bytes head) {
  if (!TextAt(head, 0, "XFSB")) return std::nullopt;
  return SizeSign{SaturatingMul(BeAt<uint64_t>(head, 8), BeAt<uint32_t>(head, 4)), false, "XFS"};
}

std::optional<SizeSign> HfsPlus(Bytes head) {
  if (!TextAt(head, 1024, "H+") && !TextAt(head, 1024, "HX")) return std::nullopt;
  uint64_t block = BeAt<uint32_t>(head, 1064), blocks = BeAt<uint32_t>(head, 1068);
  return SizeSign{block * blocks, false, "HFS+"};
}

// LVM2: a label in one of the first four sectors; behind it the volume's own size.
std::optional<SizeSign> Lvm(Bytes head) {
  for (size_t at = 0; at < 2048; at += kSector) {
    if (!TextAt(head, at, "LABELONE") || !TextAt(head, at + 24, "LVM2 001")) continue;
    uint64_t header = LeAt<uint32_t>(head, at + 20);
    if (header < 32 || header > kSector - 40) continue;
    return SizeSign{LeAt<uint64_t>(head, at + header + 32), true, "an LVM volume"};
  }
  return std::nullopt;
}

std::optional<SizeSign> Swap(Bytes head) {
  if (!TextAt(head, 4096 - 10, "SWAPSPACE2")) return std::nullopt;
  return SizeSign{(uint64_t{LeAt<uint32_t>(head, 1028)} + 1) * 4096, false, "a swap area"};
}

std::optional<SizeSign> Iso9660(Bytes head) {
  if (!TextAt(head, 0x8001, "CD001")) return std::nullopt;
  return SizeSign{uint64_t{LeAt<uint32_t>(head, 0x8050)} * 2048, false, "ISO 9660"};
}

std::optional<SizeSign> Btrfs(Bytes head) {
  constexpr size_t kSuper = 0x10000;
  if (!TextAt(head, kSuper + 0x40, "_BHRfS_M")) return std::nullopt;
  return SizeSign{LeAt<uint64_t>(head, kSuper + 0xC9 + 8), true, "btrfs"};  // of this device
}

}  // namespace

std::vector<SizeSign> FindSizeSigns(const GuestReader& read, uint64_t limit) {
  constexpr uint64_t kHead = 0x11000, kPiece = 4096;
  ByteVector head(kHead);
  for (uint64_t at = 0; at < kHead; at += kPiece) {
    MutableBytes piece = MutableBytes(head).subspan(at, kPiece);
    if (!read(at, piece)) std::ranges::fill(piece, uint8_t{0});
  }
  using Look = std::optional<SizeSign> (*)(Bytes head);
  static constexpr std::array<Look, 10> kLooks = {Gpt, Mbr,  Ext,     Xfs,   Fat,
                                                  Lvm, Swap, Iso9660, Btrfs, HfsPlus};
  std::vector<SizeSign> signs;
  for (Look look : kLooks) {
    auto sign = look(head);
    if (sign && sign->bytes >= kSector && sign->bytes <= limit) signs.push_back(std::move(*sign));
  }
  return signs;
}

}  // namespace imgfsck
