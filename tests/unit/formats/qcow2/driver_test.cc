// SPDX-License-Identifier: Apache-2.0
// What random operations seldom meet.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/unit/formats/qcow2/image_fixture.h"

namespace imgfsck::qcow2 {
namespace {

const CreateOptions kSmallClusters{{"cluster_size", "512"}};

// So many bytes that the refcount table (64 blocks of 256 clusters) has to grow.
constexpr uint64_t kBeyondOneTable = 9 << 20;

TEST(Qcow2Driver, AHeaderWrittenAnewNamesTheRefcountTableThatGrew) {
  MemoryStore store(NewImage(16 << 20, kSmallClusters));
  auto driver = OpenStore(kQcow2Format, store);
  const ByteVector data = Pattern(1, kBeyondOneTable);
  ASSERT_OK(driver->Write(0, data));
  ASSERT_OK(driver->SetBacking(BackingReference{"/nonexistent", "raw"}));
  ASSERT_OK(driver->BitmapAdd("bits", 4096, true));
  ASSERT_OK(driver->Close());
  driver = OpenStore(kQcow2Format, store);
  ASSERT_OK(driver->SetBacking(std::nullopt));
  ASSERT_OK(driver->Close());
  driver.reset();
  Verdict verdict = CheckBytes(store);
  EXPECT_TRUE(verdict.sound()) << verdict.text;
  EXPECT_EQ(QemuCheck(store.bytes()), 0);
}

TEST(Qcow2Driver, ADirtyImageIsCountedAnewBeforeAnythingElse) {
  CreateOptions options = kSmallClusters;
  options["lazy_refcounts"] = "on";
  MemoryStore store(NewImage(1 << 20, options));
  {
    auto driver = OpenStore(kQcow2Format, store);
    ASSERT_OK(driver->Write(1000, Pattern(2, 100000)));
    ASSERT_OK(driver->Flush());
  }  // no Close(): it stays dirty, its counts were never written
  ASSERT_EQ(store.bytes()[79] & 1, 1);
  auto driver = OpenStore(kQcow2Format, store);
  ASSERT_OK(driver->BitmapAdd("bits", 4096, true));
  ASSERT_OK(driver->SnapshotCreate("one"));
  ASSERT_OK(driver->SetBacking(BackingReference{"/nonexistent", "raw"}));
  ASSERT_OK(driver->SetBacking(std::nullopt));
  ASSERT_OK(driver->Close());
  ByteVector bytes(100000);
  ASSERT_OK(driver->Read(1000, bytes));
  EXPECT_EQ(bytes, Pattern(2, 100000));
  driver.reset();
  Verdict verdict = CheckBytes(store);
  EXPECT_TRUE(verdict.sound()) << verdict.text;
  EXPECT_EQ(QemuCheck(store.bytes()), 0);
}

TEST(Qcow2Driver, LongTablesOfSmallClusters) {
  // The L1 table takes 2048 clusters, a refcount block counts 256 (and 64 with 64-bit counts).
  for (const char* bits : {"16", "64", "1"}) {
    CreateOptions options = kSmallClusters;
    options["refcount_bits"] = bits;
    MemoryStore store(NewImage(uint64_t{4} << 30, options));
    auto driver = OpenStore(kQcow2Format, store);
    ASSERT_OK(driver->Write((uint64_t{4} << 30) - 700, Pattern(3, 700)));
    ASSERT_OK(driver->SnapshotCreate("one"));
    ASSERT_OK(driver->Resize(uint64_t{6} << 30));
    ASSERT_OK(driver->SnapshotApply("one"));
    ASSERT_OK(driver->Close());
    driver.reset();
    Verdict verdict = CheckBytes(store);
    EXPECT_TRUE(verdict.sound()) << bits << " " << verdict.text;
    EXPECT_EQ(QemuCheck(store.bytes()), 0);
  }
}

}  // namespace
}  // namespace imgfsck::qcow2
