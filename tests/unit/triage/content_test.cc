// SPDX-License-Identifier: Apache-2.0
#include "triage/content.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace imgfsck {
namespace {

std::vector<std::string> MatchNames(const ByteSource& source) {
  std::vector<std::string> names;
  for (const ContentMatch& match : RecognizeDisk(source)) names.emplace_back(match.name);
  return names;
}

void Put(ByteVector& bytes, size_t at, std::string_view text) {
  if (bytes.size() < at + text.size()) bytes.resize(at + text.size());
  std::ranges::copy(AsBytes(text), bytes.begin() + static_cast<ptrdiff_t>(at));
}

ByteVector Mbr() {
  ByteVector bytes(4096);
  bytes[446 + 4] = 0x83;
  PutLe<uint32_t>(bytes, 446 + 8, 2048);
  PutLe<uint32_t>(bytes, 446 + 12, 4096);
  PutBe<uint16_t>(bytes, 510, 0x55AA);
  return bytes;
}

using Strings = std::vector<std::string>;

TEST(Content, PartitionTables) {
  ByteVector bytes = Mbr();
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{"mbr"});
  Put(bytes, 512, "EFI PART");
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), (Strings{"gpt", "mbr"}));
  ByteVector flag = Mbr();
  flag[446] = 0x12;
  EXPECT_EQ(MatchNames(MemoryStore(flag)), Strings{});
  ByteVector unsigned_sector = Mbr();
  unsigned_sector[511] = 0;
  EXPECT_EQ(MatchNames(MemoryStore(unsigned_sector)), Strings{});
  ByteVector empty(512);
  PutBe<uint16_t>(empty, 510, 0x55AA);
  EXPECT_EQ(MatchNames(MemoryStore(empty)), Strings{});
}

TEST(Content, ABootSectorOfAFileSystemIsNoPartitionTable) {
  ByteVector bytes = Mbr();
  Put(bytes, 3, "NTFS    ");
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{"ntfs"});
  bytes = Mbr();
  Put(bytes, 82, "FAT32   ");
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{"fat"});
}

TEST(Content, TheTextOfAVmdkIsKnownByItsVersion) {
  auto names = [](std::string_view text) {
    ByteVector bytes;
    Put(bytes, 0, text);
    return MatchNames(MemoryStore(bytes));
  };
  EXPECT_EQ(names("version=1\n"), Strings{"vmdk"});
  EXPECT_EQ(names("#\n# a comment\r\n  \r\n\nversion=3\r\nCID=1"), Strings{"vmdk"});
  EXPECT_EQ(names("version=4\n"), Strings{});
  EXPECT_EQ(names("version=10\n"), Strings{});
  EXPECT_EQ(names("name=x\nversion=1\n"), Strings{});
  EXPECT_EQ(names("# nothing but comments\n"), Strings{});
}

TEST(Content, TwoBytesAreNoExtFileSystem) {
  ByteVector bytes(4096);
  PutLe<uint16_t>(bytes, 1080, 0xEF53);
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{});
  PutLe<uint32_t>(bytes, 1024 + 32, 8192);
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{"ext"});
  PutLe<uint32_t>(bytes, 1024 + 24, 7);
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), Strings{});
}

TEST(Content, SeveralContainersAreAllListed) {
  ByteVector bytes(8192);
  Put(bytes, 0, std::string_view("QFI\xfb\0\0\0\3", 8));
  Put(bytes, 8192 - 512, "conectix");
  EXPECT_EQ(MatchNames(MemoryStore(bytes)), (Strings{"qcow2", "vpc"}));
}

TEST(Content, ShortFilesAndEverySignatureCutShort) {
  for (size_t size : std::initializer_list<size_t>{0, 1, 2, 511, 512, 513, 1080, 1081, 2048}) {
    EXPECT_EQ(MatchNames(MemoryStore(ByteVector(size))), Strings{}) << size;
  }
  EXPECT_EQ(MatchNames(MemoryStore(ByteVector{'K', 'D', 'M', 'V'})), Strings{"vmdk"});
  EXPECT_EQ(MatchNames(MemoryStore(ByteVector{'K', 'D', 'M'})), Strings{});
}

TEST(Content, Pieces) {
  ByteVector bytes(512);
  EXPECT_FALSE(RecognizePiece(bytes));
  Put(bytes, 0, "%PDF-1.4");
  EXPECT_EQ(RecognizePiece(bytes)->name, "PDF");
  EXPECT_EQ(RecognizePiece(Mbr())->name, "mbr");
  EXPECT_FALSE(RecognizePiece({}));
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    bytes.resize(random() % 513);
    (void)RecognizePiece(bytes);
    (void)RecognizeDisk(MemoryStore(bytes));
    bytes.resize(512);
  }
}

}  // namespace
}  // namespace imgfsck
