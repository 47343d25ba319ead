// SPDX-License-Identifier: Apache-2.0
#include "triage/content.h"

#include <algorithm>
#include <array>

#include "base/checked.h"

namespace imgfsck {
namespace {

using std::string_view_literals::operator""sv;

struct ContentSignature {
  const char* name;
  ContentKind kind;
  uint64_t offset;  // from the start
  std::string_view magic;
};

constexpr auto kContainer = ContentKind::kContainer;
constexpr auto kTable = ContentKind::kPartitionTable;
constexpr auto kSystem = ContentKind::kFileSystem;

constexpr ContentSignature kDiskSignatures[] = {
    {"qcow", kContainer, 0, "QFI\xfb\0\0\0\1"sv},
    {"qcow2", kContainer, 0, "QFI\xfb\0\0\0\2"sv},
    {"qcow2", kContainer, 0, "QFI\xfb\0\0\0\3"sv},
    {"vpc", kContainer, 0, "conectix"sv},
    {"cow", kContainer, 0, "OOOM"sv},
    {"cow", kContainer, 0, "MOOO"sv},
    {"vmdk", kContainer, 0, "KDMV"sv},
    {"vmdk", kContainer, 0, "COWD"sv},
    {"vmdk", kContainer, 0, "# Disk DescriptorFile"sv},
    {"vhdx", kContainer, 0, "vhdxfile"sv},
    {"vdi", kContainer, 64, "\x7f\x10\xda\xbe"sv},
    {"qed", kContainer, 0, "QED\0"sv},
    {"parallels", kContainer, 0, "WithoutFreeSpace"sv},
    {"parallels", kContainer, 0, "WithouFreSpacExt"sv},
    {"bochs", kContainer, 0, "Bochs Virtual HD Image"sv},
    {"cloop", kContainer, 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"sv},
    {"ewf", kContainer, 0, "EVF\x09\x0d\x0a\xff\0"sv},
    {"ewf", kContainer, 0, "EVF2\x0d\x0a\x81\0"sv},
    {"aff", kContainer, 0, "AFF10\r\n\0"sv},
    {"vma", kContainer, 0, "VMA\0"sv},
    {"gpt", kTable, 512, "EFI PART"sv},
    {"gpt", kTable, 4096, "EFI PART"sv},
    {"apple-partitions", kTable, 512, "PM\0\0"sv},
    {"ext", kSystem, 1080, "\x53\xef"sv},
    {"ntfs", kSystem, 3, "NTFS    "sv},
    {"exfat", kSystem, 3, "EXFAT   "sv},
    {"bitlocker", kSystem, 3, "-FVE-FS-"sv},
    {"fat", kSystem, 54, "FAT1"sv},
    {"fat", kSystem, 82, "FAT32   "sv},
    {"xfs", kSystem, 0, "XFSB"sv},
    {"btrfs", kSystem, 0x10040, "_BHRfS_M"sv},
    {"iso9660", kSystem, 0x8001, "CD001"sv},
    {"udf", kSystem, 0x8001, "BEA01"sv},
    {"luks", kSystem, 0, "LUKS\xba\xbe"sv},
    {"lvm2", kSystem, 536, "LVM2 001"sv},
    {"md-raid", kSystem, 4096, "\xfc\x4e\x2b\xa9"sv},
    {"swap", kSystem, 4086, "SWAPSPACE2"sv},
    {"squashfs", kSystem, 0, "hsqs"sv},
    {"hfs-plus", kSystem, 1024, "H+\0\4"sv},
    {"hfs-plus", kSystem, 1024, "HX\0\5"sv},
    {"apfs", kSystem, 32, "NXSB"sv},
    {"f2fs", kSystem, 1024, "\x10\x20\xf5\xf2"sv},
    {"jfs", kSystem, 0x8000, "JFS1"sv},
    {"reiserfs", kSystem, 0x10034, "ReIsEr"sv},
    {"vmfs", kSystem, 0x100000, "\x0d\xd0\x01\xc0"sv},
};

constexpr ContentSignature kPieceSignatures[] = {
    {"NTFS file record", ContentKind::kFile, 0, "FILE0\0"sv},
    {"NTFS file record", ContentKind::kFile, 0, "FILE*\0"sv},
    {"NTFS index", ContentKind::kFile, 0, "INDX"sv},
    {"ext journal", ContentKind::kFile, 0, "\xc0\x3b\x39\x98"sv},
    {"XFS inodes", ContentKind::kFile, 0, "IN\x81"sv},
    {"Windows registry", ContentKind::kFile, 0, "regf"sv},
    {"Windows registry", ContentKind::kFile, 0, "hbin"sv},
    {"Windows event log", ContentKind::kFile, 0, "ElfFile\0"sv},
    {"Windows event log", ContentKind::kFile, 0, "ElfChnk\0"sv},
    {"Windows prefetch", ContentKind::kFile, 4, "SCCA"sv},
    {"Windows program", ContentKind::kFile, 0, "MZ\x90\0"sv},
    {"ELF program", ContentKind::kFile, 0,
     "\x7f"
     "ELF"sv},
    {"SQLite database", ContentKind::kFile, 0, "SQLite format 3\0"sv},
    {"PDF", ContentKind::kFile, 0, "%PDF-"sv},
    {"ZIP", ContentKind::kFile, 0, "PK\3\4"sv},
    {"OLE document", ContentKind::kFile, 0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv},
    {"Outlook store", ContentKind::kFile, 0, "!BDN"sv},
    {"PNG", ContentKind::kFile, 0, "\x89PNG\r\n"sv},
    {"JPEG", ContentKind::kFile, 0, "\xff\xd8\xff"sv},
    {"GIF", ContentKind::kFile, 0, "GIF8"sv},
    {"gzip", ContentKind::kFile, 0, "\x1f\x8b\x08"sv},
    {"bzip2", ContentKind::kFile, 0, "BZh"sv},
    {"xz", ContentKind::kFile, 0,
     "\xfd"
     "7zXZ\0"sv},
    {"zstd", ContentKind::kFile, 0, "\x28\xb5\x2f\xfd"sv},
    {"7-Zip", ContentKind::kFile, 0, "7z\xbc\xaf\x27\x1c"sv},
    {"RAR", ContentKind::kFile, 0, "Rar!\x1a\x07"sv},
    {"tar", ContentKind::kFile, 257, "ustar"sv},
    {"private key", ContentKind::kFile, 0, "-----BEGIN "sv},
    {"script", ContentKind::kFile, 0, "#!/"sv},
};

bool Matches(Bytes head, const ContentSignature& signature) {
  return RangeFits(signature.offset, signature.magic.size(), head.size()) &&
         AsText(head.subspan(signature.offset, signature.magic.size())) == signature.magic;
}

// A boot sector's signature alone says nothing: every FAT and NTFS volume has one, too.
bool IsMbr(Bytes head) {
  if (head.size() < 512 || BeAt<uint16_t>(head, 510) != 0x55AA) return false;
  if (AsText(head.subspan(3, 4)) == "NTFS" || AsText(head.subspan(54, 4)) == "FAT1" ||
      AsText(head.subspan(82, 5)) == "FAT32" || AsText(head.subspan(3, 5)) == "EXFAT") {
    return false;
  }
  bool used = false;
  for (size_t at = 446; at < 510; at += 16) {
    const uint8_t flag = head[at], type = head[at + 4];
    if ((flag & 0x7F) != 0) return false;
    if (type == 0) continue;
    if (LeAt<uint32_t>(head, at + 8) == 0 || LeAt<uint32_t>(head, at + 12) == 0) return false;
    used = true;
  }
  return used;
}

// The two bytes at 1080 are not enough: block size, state and revision must be possible.
bool IsExt(Bytes head) {
  if (head.size() < 2048) return false;
  const Bytes super = head.subspan(1024);
  return LeAt<uint16_t>(super, 56) == 0xEF53 && LeAt<uint32_t>(super, 24) <= 6 &&
         LeAt<uint32_t>(super, 76) <= 1 && LeAt<uint32_t>(super, 32) != 0;
}

// Where the text of a VMDK's descriptor has its version, if it is one as QEMU tells them: nothing
// but comments and blank lines may come before.
std::optional<uint64_t> FindVmdkText(Bytes head) {
  const std::string_view text = AsText(head.first(std::min<size_t>(head.size(), 2048)));
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line == "version=1" || line == "version=2" || line == "version=3") return at;
    const bool blank = line.find_first_not_of(' ') == std::string_view::npos;
    if (!blank && !line.starts_with('#')) return std::nullopt;
    at = end + 1;
  }
  return std::nullopt;
}

bool MakesSense(const ContentSignature& signature, Bytes head) {
  if (signature.name == "ext"sv) return IsExt(head);
  if (signature.name == "fat"sv) return head.size() >= 512 && BeAt<uint16_t>(head, 510) == 0x55AA;
  return true;
}

// What may stand before the first sector that a guest's table of partitions can name, and the
// start of those file systems that keep their first block free.
constexpr uint64_t kHeadBytes = 0x10200;

}  // namespace

std::string_view ToText(ContentKind kind) {
  switch (kind) {
    case ContentKind::kContainer:
      return "container";
    case ContentKind::kPartitionTable:
      return "partition-table";
    case ContentKind::kFileSystem:
      return "file-system";
    case ContentKind::kFile:
      return "file";
  }
  return "";
}

std::vector<ContentMatch> RecognizeDisk(uint64_t size, const ContentReader& read) {
  ByteVector head(std::min(size, kHeadBytes));
  read(0, head);
  std::vector<ContentMatch> matches;
  auto add = [&](std::string_view name, ContentKind kind, uint64_t offset, uint64_t length) {
    const bool again =
        std::ranges::any_of(matches, [&](const ContentMatch& known) { return known.name == name; });
    if (!again) matches.push_back({name, kind, offset, length});
  };
  for (const ContentSignature& signature : kDiskSignatures) {
    if (Matches(head, signature) && MakesSense(signature, head)) {
      add(signature.name, signature.kind, signature.offset, signature.magic.size());
    } else if (signature.offset >= kHeadBytes && signature.offset < size) {
      ByteVector magic(signature.magic.size());
      read(signature.offset, magic);
      if (AsText(magic) == signature.magic) {
        add(signature.name, signature.kind, signature.offset, magic.size());
      }
    }
  }
  if (const auto version = FindVmdkText(head)) add("vmdk", kContainer, *version, 9);
  if (IsMbr(head)) add("mbr", kTable, 446, 66);
  if (size >= 512) {
    std::array<uint8_t, 512> tail{};
    read(size - 512, tail);
    const std::string_view text = AsText(tail);
    if (text.starts_with("conectix")) add("vpc", kContainer, size - 512, 8);
    if (text.starts_with("koly")) add("dmg", kContainer, size - 512, 4);
    if (text.starts_with("EFI PART")) add("gpt", kTable, size - 512, 8);
  }
  std::ranges::stable_sort(matches, {}, &ContentMatch::kind);
  return matches;
}

std::vector<ContentMatch> RecognizeDisk(const ByteSource& source) {
  return RecognizeDisk(source.Size(), [&](uint64_t offset, MutableBytes buffer) {
    if (!ReadPadded(source, offset, buffer)) std::ranges::fill(buffer, uint8_t{0});
  });
}

std::optional<ContentMatch> RecognizePiece(Bytes piece) {
  auto match = [](const ContentSignature& signature) {
    return ContentMatch{signature.name, signature.kind, signature.offset, signature.magic.size()};
  };
  for (const ContentSignature& signature : kPieceSignatures) {
    if (Matches(piece, signature)) return match(signature);
  }
  for (const ContentSignature& signature : kDiskSignatures) {
    if (Matches(piece, signature) && MakesSense(signature, piece)) return match(signature);
  }
  if (IsMbr(piece)) return ContentMatch{"mbr", kTable, 446, 66};
  return std::nullopt;
}

}  // namespace imgfsck
