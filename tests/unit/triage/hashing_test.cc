// SPDX-License-Identifier: Apache-2.0
#include "triage/hashing.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/interrupt.h"
#include "io/bad_ranges.h"
#include "io/file.h"
#include "io/sha256.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

HashOptions All() { return *ParseHashOptions("md5,sha1,sha256,pieces"); }

HashFacts HashOf(const ByteSource& source, const HashOptions& options = All()) {
  auto facts = Hash(HashSourceOf(source), options);
  EXPECT_TRUE(facts);
  return *facts;
}

TEST(Hashing, KnownDigests) {
  const std::string_view abc = "abc";
  const HashFacts facts = HashOf(MemoryStore({abc.begin(), abc.end()}));
  EXPECT_EQ(facts.digests.at("md5"), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(facts.digests.at("sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(facts.digests.at("sha256"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(facts.pieces, std::vector<std::string>{facts.digests.at("sha256")});
  EXPECT_TRUE(facts.done);
  EXPECT_EQ(facts.bytes, 3u);
  EXPECT_EQ(HashOf(MemoryStore()).digests.at("md5"), "d41d8cd98f00b204e9800998ecf8427e");
}

// Pieces and chunks begin and end everywhere; zeros are known by their holes or found by reading.
TEST(Hashing, HolesZerosAndDataAreOneAndTheSame) {
  TempDir dir;
  const uint64_t sizes[] = {kHashPiece - 1,     kHashPiece,     kHashPiece + 1,
                            2 * kHashPiece + 5, 5 * kHashPiece, 3 * kHashPiece + 4096};
  for (uint64_t size : sizes) {
    auto file = FileStore::Open(dir.File(std::to_string(size)), FileStore::Mode::kCreateNew);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->SetSize(size));
    ASSERT_TRUE((*file)->WriteAt(size - 1, AsBytes("x")));
    ASSERT_TRUE((*file)->WriteAt(size / 2,
                                 AsBytes("middle").first(std::min<uint64_t>(6, size - size / 2))));
    ByteVector bytes(size);
    ASSERT_TRUE(ReadExact(**file, 0, bytes));
    const HashFacts facts = HashOf(**file);
    EXPECT_EQ(facts, HashOf(MemoryStore(bytes))) << size;
    EXPECT_EQ(facts.digests.at("sha256"), HexSha256(bytes)) << size;
    ASSERT_EQ(facts.pieces.size(), (size + kHashPiece - 1) / kHashPiece);
    for (size_t i = 0; i < facts.pieces.size(); ++i) {
      const uint64_t at = i * kHashPiece, length = std::min(kHashPiece, size - at);
      EXPECT_EQ(facts.pieces[i], HexSha256(Bytes(bytes).subspan(at, length))) << size << " " << i;
    }
  }
}

TEST(Hashing, ThreadsChangeNothing) {
  ByteVector bytes(9'000'001);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * i >> 7);
  HashOptions options = All();
  const HashFacts one = HashOf(MemoryStore(bytes), options);
  options.threads = 4;
  EXPECT_EQ(one, HashOf(MemoryStore(bytes), options));
}

TEST(Hashing, WhatCannotBeReadIsZerosAndListed) {
  ByteVector bytes(10 * kMiB + 100, 7);
  const MemoryStore store(bytes);
  const std::vector<HostRange> bad = {MakeHostRange(0, 512), MakeHostRange(4 * kMiB - 512, 1024),
                                      MakeHostRange(9 * kMiB, 300),
                                      MakeHostRange(10 * kMiB + 50, 50)};
  const HashFacts facts = HashOf(BadRangeSource(store, bad));
  EXPECT_EQ(facts.unreadable,
            (std::vector<HostRange>{MakeHostRange(0, 512), MakeHostRange(4 * kMiB - 512, 1024),
                                    MakeHostRange(9 * kMiB, 512), MakeHostRange(10 * kMiB, 100)}));
  for (const HostRange& range : facts.unreadable) {
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(range.offset.value), range.length,
                uint8_t{0});
  }
  EXPECT_EQ(facts.digests, HashOf(MemoryStore(bytes)).digests);
}

// A file of nothing that says it is as long as disks get, with a few bytes in it.
TEST(Hashing, WhatIsAbsurdlyLongIsHashedInPieces) {
  uint64_t reads = 0;
  HashSource source;
  source.size = 16 * kTiB + 5;
  source.extent = [](uint64_t offset) -> HashExtent {
    if (offset < kTiB) return {kTiB - offset, true};
    if (offset < kTiB + 512) return {kTiB + 512 - offset, false};
    return {16 * kTiB + 5 - offset, true};
  };
  source.read = [&](uint64_t, MutableBytes buffer) -> Status {
    std::ranges::fill(buffer, uint8_t{7});
    ++reads;
    return Ok();
  };
  HashOptions options = *ParseHashOptions("md5,sha256");
  options.longest = 2 * kTiB;
  const auto facts = Hash(source, options);
  ASSERT_TRUE(facts);
  EXPECT_TRUE(facts->done);
  EXPECT_NE(facts->trouble, "");
  EXPECT_EQ(facts->digests.size(), 1u);
  EXPECT_TRUE(facts->pieces.empty());  // nobody asked for them
  EXPECT_EQ(reads, 1u);
  const auto pieces = Hash(source, *ParseHashOptions("pieces"));
  ASSERT_TRUE(pieces);
  EXPECT_EQ(pieces->trouble, "");
  EXPECT_EQ(pieces->digests, facts->digests);
  EXPECT_TRUE(pieces->pieces.empty());  // too many
  source.size = 3 * kTiB;
  const auto list = Hash(source, *ParseHashOptions("pieces"))->pieces;
  ASSERT_EQ(list.size(), 3 * kTiB / kHashPiece);
  EXPECT_EQ(list[0], HexSha256(ByteVector(kHashPiece)));
  EXPECT_NE(list[kTiB / kHashPiece], list[0]);
  EXPECT_EQ(std::ranges::count(list, list[0]), 3 * kTiB / kHashPiece - 1);
  source.size = uint64_t{1} << 62;
  EXPECT_FALSE(Hash(source, options)->done);
  EXPECT_NE(Hash(source, options)->trouble, "");
}

TEST(Hashing, StopsWhenAsked) {
  RequestStop();
  const MemoryStore store(ByteVector(100));
  EXPECT_FALSE(Hash(HashSourceOf(store), All()));
  ClearStopRequest();
}

TEST(Hashing, Lists) {
  EXPECT_TRUE(ParseHashOptions("sha1")->sha1);
  EXPECT_FALSE(ParseHashOptions("sha1")->md5);
  EXPECT_FALSE(ParseHashOptions(""));
  EXPECT_FALSE(ParseHashOptions("sha512"));
  EXPECT_FALSE(ParseHashOptions("md5,,sha1"));
}

}  // namespace
}  // namespace imgfsck
