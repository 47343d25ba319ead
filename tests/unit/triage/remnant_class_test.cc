// SPDX-License-Identifier: Apache-2.0
#include "triage/remnant_class.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "formats/qcow2/bitmaps.h"
#include "io/byte_source.h"

namespace imgfsck {
namespace {

constexpr uint64_t kCluster = 64 * kKiB, kClusters = 32;

// A file of 32 clusters, and the class of the one at `offset`.
PieceClass ClassOf(ByteVector file, uint64_t offset, std::string_view format = "qcow2") {
  file.resize(kClusters * kCluster);
  const MemoryStore source(file);
  return PieceClassifier(source, format, kCluster)
      .Classify(offset, Bytes(file).subspan(offset, kCluster));
}

void PutEntry(ByteVector& file, uint64_t table, size_t index, uint64_t entry) {
  PutBe<uint64_t>(file, table + 8 * index, entry);
}

ByteVector Empty() { return ByteVector(kClusters * kCluster); }

TEST(RemnantClass, TablesByTheirShape) {
  ByteVector file = Empty();
  for (size_t i = 0; i < 5; ++i)
    PutEntry(file, 4 * kCluster, 9 * i, (6 + i) * kCluster | 1ull << 63);
  EXPECT_EQ(ClassOf(file, 4 * kCluster).what, "l2 table");
  EXPECT_EQ(ClassOf(file, 4 * kCluster).kind, RemnantClass::kTable);
  PutEntry(file, 5 * kCluster, 0, 4 * kCluster | 1ull << 63);
  EXPECT_EQ(ClassOf(file, 5 * kCluster).what, "l1 table");
  EXPECT_NE(ClassOf(file, 4 * kCluster, "vpc").kind, RemnantClass::kTable);
  PutEntry(file, 4 * kCluster, 100, kClusters * kCluster);  // behind the end of the file
  EXPECT_NE(ClassOf(file, 4 * kCluster).kind, RemnantClass::kTable);
}

TEST(RemnantClass, Counts) {
  ByteVector file = Empty();
  for (size_t i = 0; i < 40; ++i) {
    PutBe<uint16_t>(file, kCluster + 2 * i, static_cast<uint16_t>(1 + i % 3));
  }
  EXPECT_EQ(ClassOf(file, kCluster).what, "refcount block");
}

TEST(RemnantClass, TheSnapshotTable) {
  ByteVector file = Empty();
  const uint64_t at = 3 * kCluster;
  PutBe<uint64_t>(file, at, 7 * kCluster);  // L1 table
  PutBe<uint32_t>(file, at + 8, 1);         // entries
  PutBe<uint16_t>(file, at + 12, 1);        // length of the id
  PutBe<uint16_t>(file, at + 14, 6);        // of the name
  PutBe<uint32_t>(file, at + 36, 16);       // of what follows
  PutBe<uint64_t>(file, at + 48, kMiB);     // size of the disk
  const std::string names = "1before";
  std::copy(names.begin(), names.end(), file.begin() + at + 56);
  EXPECT_EQ(ClassOf(file, at).what, "snapshot table: before");
}

TEST(RemnantClass, TheBitmapDirectory) {
  ByteVector file = Empty();
  const uint64_t at = 3 * kCluster;
  qcow2::Bitmap bitmap;
  bitmap.table_offset = 7 * kCluster;
  bitmap.table_size = 1;
  bitmap.type = 1;
  bitmap.granularity_bits = 16;
  bitmap.name = "night";
  std::ranges::copy(qcow2::EncodeBitmapEntry(bitmap), file.begin() + at);
  EXPECT_EQ(ClassOf(file, at).what, "bitmap directory: night");
  file[at + 17] = 60;
  EXPECT_NE(ClassOf(file, at).kind, RemnantClass::kTable);
}

TEST(RemnantClass, ContentByItsLook) {
  const uint64_t at = 2 * kCluster;
  auto with = [&](auto fill) {
    ByteVector file = Empty();
    for (size_t i = 0; i < kCluster; ++i) file[at + i] = static_cast<uint8_t>(fill(i));
    return ClassOf(std::move(file), at).kind;
  };
  std::mt19937 random(3);
  EXPECT_EQ(with([&](size_t) { return static_cast<uint8_t>(random()); }), RemnantClass::kRandom);
  EXPECT_EQ(with([](size_t i) { return "some words\n"[i % 11]; }), RemnantClass::kText);
  EXPECT_EQ(with([](size_t i) { return static_cast<uint8_t>(i % 7 + 200); }), RemnantClass::kData);
  EXPECT_EQ(with([](size_t i) { return static_cast<uint8_t>(i < 5 ? "%PDF-"[i] : 200); }),
            RemnantClass::kKnownHeader);
}

TEST(RemnantClass, AnyBytesAreSomething) {
  std::mt19937 random(9);
  ByteVector file = Empty();
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 64; ++i) file[kCluster + random() % 512] = static_cast<uint8_t>(random());
    const PieceClass found = ClassOf(file, kCluster);
    EXPECT_LT(found.kind, RemnantClass::kEnd);
    EXPECT_GE(found.entropy, 0);
  }
}

}  // namespace
}  // namespace imgfsck
