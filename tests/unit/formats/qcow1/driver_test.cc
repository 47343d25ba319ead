// SPDX-License-Identifier: Apache-2.0
// The qcow version 1 driver on images in memory: what it writes it reads, in any order and through
// a backing file; and after a stop at any write the image holds the old or the new bytes.
#include "formats/qcow1/driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "formats/qcow1/walk.h"
#include "formats/qcow1/xen.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::qcow1 {
namespace {

struct Shape {
  std::string cluster_bits, l2_bits;
  bool backing, encrypted, compressed;
};

class QcowShapes : public testing::TestWithParam<Shape> {};

TEST_P(QcowShapes, ReadsWhatWasWritten) {
  const Shape& shape = GetParam();
  const uint64_t size = 3 * kMiB + 5 * kSector;
  ByteVector base = shape.backing ? Pattern(99, size - 700) : ByteVector();
  CreateOptions options{{"cluster_bits", shape.cluster_bits}, {"l2_bits", shape.l2_bits}};
  if (shape.backing) options["backing_file"] = "base.img";
  if (shape.encrypted) options["encryption"] = "on";
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, size, options));
  std::string key = shape.encrypted ? "secret" : "";
  ByteVector expected(size);
  std::copy(base.begin(), base.end(), expected.begin());
  {
    auto driver = OpenStore(kFormat, store, key);
    ASSERT_TRUE(driver);
    driver->SetBackingReader(ReaderOf(base));
    EXPECT_EQ(driver->VirtualSize(), size);
    EXPECT_EQ(driver->Backing().has_value(), shape.backing);
    std::mt19937_64 random(5);
    for (int i = 0; i < 60; ++i) {
      uint64_t offset = random() % size;
      uint64_t length = std::min<uint64_t>(1 + random() % 9000, size - offset);
      if (shape.compressed && i % 3 == 0) {
        offset = AlignDown(offset, driver->ClusterSize());
        length = std::min(driver->ClusterSize(), size - offset);
      }
      ByteVector bytes = Pattern(static_cast<uint64_t>(i), length);
      if (shape.compressed && i % 3 == 0) {
        std::fill_n(bytes.begin(), length * 9 / 10, static_cast<uint8_t>(i));
        ASSERT_TRUE(driver->WriteCompressed(offset, bytes));
      } else if (i % 7 == 6) {
        std::fill(bytes.begin(), bytes.end(), uint8_t{0});
        ASSERT_TRUE(driver->Zero(offset, length));
      } else {
        ASSERT_TRUE(driver->Write(offset, bytes));
      }
      std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<long>(offset));
      if (i % 10 == 9) {
        ASSERT_TRUE(driver->Flush());
      }
    }
    EXPECT_TRUE(ReadAll(*driver) == expected);  // with entries still waiting
    ASSERT_TRUE(driver->Close());
  }
  auto again = OpenStore(kFormat, store, key);
  again->SetBackingReader(ReaderOf(base));
  EXPECT_TRUE(ReadAll(*again) == expected);
  EXPECT_FALSE(again->Read(size - 1, MutableBytes(expected).first(2)));

  uint64_t covered = 0, mapped = 0;
  while (covered < size) {
    auto status = again->StatusAt(covered, size);
    ASSERT_TRUE(status);
    ASSERT_GE(status->length, 1u);
    if (status->state != MappingState::kUnallocated) mapped += status->length;
    covered += status->length;
  }
  EXPECT_EQ(covered, size);
  EXPECT_GT(mapped, size / 20);
}

INSTANTIATE_TEST_SUITE_P(
    All, QcowShapes,
    testing::Values(Shape{"12", "9", false, false, false}, Shape{"9", "12", true, false, false},
                    Shape{"12", "9", true, false, false}, Shape{"16", "6", true, false, true},
                    Shape{"9", "6", false, false, true}, Shape{"12", "9", true, true, false},
                    Shape{"16", "13", false, true, true}));

TEST(Qcow1Driver, PartialWriteKeepsTheBackingFilesBytes) {
  ByteVector base(64 * kKiB, 0x5B);
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, base.size(), {{"backing_file", "b"}, {"cluster_bits", "12"}}));
  auto driver = OpenStore(kFormat, store);
  driver->SetBackingReader(ReaderOf(base));
  ASSERT_TRUE(driver->Write(5000, ByteVector(10, 0xAA)));
  ByteVector cluster(4096);
  ASSERT_TRUE(driver->Read(4096, cluster));
  EXPECT_EQ(cluster[903], 0x5B);
  EXPECT_EQ(cluster[904], 0xAA);
  EXPECT_EQ(cluster[914], 0x5B);
}

TEST(Qcow1Driver, CreatesTheLayoutOfQemu) {
  MemoryStore plain;
  ASSERT_TRUE(kFormat.create(plain, 16 * kMiB, {}));
  EXPECT_EQ(HexEncode(Bytes(plain.bytes()).first(48)),
            "514649fb0000000100000000000000000000000000000000"
            "00000000010000000c090000000000000000000000000030");
  EXPECT_EQ(plain.Size(), 560u);
  MemoryStore overlay;
  ASSERT_TRUE(kFormat.create(overlay, 16 * kMiB, {{"backing_file", "base.im"}}));
  Header h = ParseHeader(overlay.bytes());
  EXPECT_EQ(h.backing_file_offset, 48u);
  EXPECT_EQ(h.l1_table_offset, 56u);
  EXPECT_EQ(h.cluster_bits, 9);
  EXPECT_EQ(h.l2_bits, 12);
}

TEST(Qcow1Driver, RefusesImpossibleImages) {
  MemoryStore store;
  EXPECT_FALSE(kFormat.create(store, 0, {}));
  EXPECT_FALSE(kFormat.create(store, kMiB, {{"cluster_bits", "17"}}));
  EXPECT_FALSE(kFormat.create(store, kMiB, {{"cluster_size", "1000"}}));
  EXPECT_FALSE(kFormat.create(store, kMiB, {{"nonsense", "1"}}));
  EXPECT_FALSE(kFormat.create(store, uint64_t{1} << 62, {}));
  ASSERT_TRUE(kFormat.create(store, kMiB, {{"encryption", "on"}}));
  auto keyless = kFormat.open(store, nullptr, {});
  ASSERT_FALSE(keyless);
  EXPECT_EQ(keyless.error().code, ErrorCode::kNeedsKey);
  for (auto [at, value] : {std::pair<size_t, uint8_t>{3, 0},
                           {7, 2},
                           {32, 8},
                           {32, 17},
                           {33, 5},
                           {33, 14},
                           {39, 2},
                           {47, 8},
                           {24, 0xFF}}) {
    MemoryStore damaged;
    ASSERT_TRUE(kFormat.create(damaged, kMiB, {}));
    damaged.bytes()[at] = value;
    EXPECT_FALSE(kFormat.open(damaged, nullptr, {})) << at;
  }
}

TEST(Qcow1Driver, ReadsBothTapdiskByteOrders) {
  for (bool little : {false, true}) {
    MemoryStore store;
    Header h;
    h.size = 8 * kMiB;
    h.l1_table_offset = 4096;
    ByteVector bytes(4096 + 32);
    EncodeHeader(h, bytes);
    EncodeXenHeader({0, 0, little ? 0 : kXenBigEndianL1}, MutableBytes(bytes).subspan(48));
    // A table for the third span at 8192 with one cluster at 12288.
    bytes.resize(16384);
    little ? PutLe<uint64_t>(bytes, 4096 + 16, 8192) : PutBe<uint64_t>(bytes, 4096 + 16, 8192);
    PutBe<uint64_t>(bytes, 8192 + 8, 12288);
    std::fill_n(bytes.begin() + 12288, 4096, uint8_t{0x77});
    store.bytes() = bytes;
    auto driver = OpenStore(kFormat, store);
    ASSERT_TRUE(driver);
    ByteVector sector(kSector);
    ASSERT_TRUE(driver->Read(4 * kMiB + 4096, sector));
    EXPECT_EQ(sector[0], 0x77) << little;
    ASSERT_TRUE(driver->Write(0, sector));
    ASSERT_TRUE(driver->Close());
    // The new L1 entry is in the order of the others, and the checksum is that of the table.
    uint64_t entry =
        little ? LeAt<uint64_t>(store.bytes(), 4096) : BeAt<uint64_t>(store.bytes(), 4096);
    EXPECT_EQ(entry, 16384u);
    auto checksum = XenChecksum(store, GeometryOf(h), 4096, little);
    ASSERT_TRUE(checksum);
    EXPECT_EQ(BeAt<uint32_t>(store.bytes(), 52), *checksum);
  }
}

TEST(Qcow1Driver, SetBackingKeepsOneNameWhole) {
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, kMiB, {{"backing_file", "old"}}));
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver->SetBacking(BackingReference{"a much longer new name.img", ""}));
  EXPECT_EQ(OpenStore(kFormat, store)->Backing()->name, "a much longer new name.img");
  ASSERT_TRUE(driver->SetBacking(std::nullopt));
  EXPECT_FALSE(OpenStore(kFormat, store)->Backing());
}

}  // namespace
}  // namespace imgfsck::qcow1
