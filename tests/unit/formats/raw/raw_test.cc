// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "formats/raw/format.h"
#include "io/byte_source.h"

namespace imgfsck {
namespace {

TEST(Raw, IsNeverProbedButFoundByName) {
  MemoryStore store(ByteVector(4096, 7));
  EXPECT_EQ(ProbeFormat(store), nullptr);
  EXPECT_EQ(FindFormat("raw"), &kRawFormat);
  EXPECT_EQ(FindFormat("RAW"), nullptr);
  EXPECT_EQ(FindFormat("qcow2")->name, "qcow2");
  ASSERT_NE(FindFormat("qcow"), nullptr);
}

TEST(Raw, QcowMagicIsProbed) {
  ByteVector bytes(104);
  PutBe<uint32_t>(bytes, 0, 0x514649fb);
  PutBe<uint32_t>(bytes, 4, 3);
  ASSERT_NE(ProbeFormat(MemoryStore(bytes)), nullptr);
  EXPECT_EQ(ProbeFormat(MemoryStore(bytes))->name, "qcow2");
  PutBe<uint32_t>(bytes, 0, 0x514649fa);
  EXPECT_EQ(ProbeFormat(MemoryStore(bytes)), nullptr);
}

TEST(Raw, RowsAreOneMapping) {
  MemoryStore store(ByteVector(1000, 7));
  auto rows = kRawFormat.inspect(store, "disk");
  ASSERT_TRUE(rows);
  EXPECT_EQ((*rows)->Image().virtual_size, 1024u);
  EXPECT_EQ((*rows)->Image().file_size, 1000u);
  auto cursor = (*rows)->Mappings({});
  std::vector<MappingRow> batch;
  ASSERT_TRUE(cursor->NextBatch(&batch));
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].state, MappingState::kData);
  EXPECT_EQ(batch[0].length, 1024u);
  ASSERT_TRUE(cursor->NextBatch(&batch));
  EXPECT_TRUE(batch.empty());
  RowQuery other;
  other.layer = "1";
  ASSERT_TRUE((*rows)->Mappings(other)->NextBatch(&batch));
  EXPECT_TRUE(batch.empty());
}

TEST(Raw, DriverReadsWritesZeroesAndResizes) {
  MemoryStore store;
  ASSERT_TRUE(kRawFormat.create(store, 4096, {}));
  EXPECT_FALSE(kRawFormat.create(store, 4096, {{"cluster_size", "512"}}));
  OpenOptions options;
  options.writable = true;
  auto opened = kRawFormat.open(store, &store, options);
  ASSERT_TRUE(opened);
  Driver& disk = **opened;
  EXPECT_TRUE(disk.Write(100, AsBytes("hello")));
  ByteVector buffer(5);
  ASSERT_TRUE(disk.Read(100, buffer));
  EXPECT_EQ(AsText(buffer), "hello");
  ASSERT_TRUE(disk.Zero(102, 1));
  ASSERT_TRUE(disk.Read(100, buffer));
  EXPECT_EQ(buffer[2], 0);
  EXPECT_EQ(buffer[3], 'l');
  EXPECT_FALSE(disk.Read(4092, buffer));
  EXPECT_FALSE(disk.Write(4096, AsBytes("x")));
  ASSERT_TRUE(disk.Resize(8192));
  EXPECT_EQ(disk.VirtualSize(), 8192u);
  EXPECT_EQ(disk.SnapshotCreate("s").error().code, ErrorCode::kUnsupported);
}

TEST(Raw, ReadsZerosInTheMissingPartOfTheLastSector) {
  MemoryStore store(ByteVector(700, 7));
  auto disk = kRawFormat.open(store, nullptr, {});
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->VirtualSize(), 1024u);
  ByteVector buffer(1024, 9);
  ASSERT_TRUE((*disk)->Read(0, buffer));
  EXPECT_EQ(buffer[699], 7);
  EXPECT_EQ(buffer[700], 0);
  EXPECT_EQ((*disk)->Write(0, AsBytes("x")).error().code, ErrorCode::kPermission);
  auto status = (*disk)->StatusAt(1000, 100);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->state, MappingState::kZero);
  EXPECT_EQ(status->length, 24u);
}

}  // namespace
}  // namespace imgfsck
