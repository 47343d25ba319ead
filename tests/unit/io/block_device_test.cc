// SPDX-License-Identifier: Apache-2.0
// Images on block devices, played by a loop device. Needs the right to make one; else skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "io/lock.h"
#include "io/undo_record.h"
#include "temp_dir.h"

namespace imgfsck {
namespace {

class BlockDevice : public testing::Test {
 protected:
  void SetUp() override {
    const std::string backing = dir_.Put("backing", std::string(kSize, 'o'));
    FILE* pipe = popen(("losetup -f --show " + backing + " 2>/dev/null").c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    char line[64] = "";
    const bool answered = fgets(line, sizeof line, pipe) != nullptr;
    pclose(pipe);
    if (!answered) GTEST_SKIP() << "no loop device to be had";
    device_ = std::string(line).substr(0, std::string_view(line).find('\n'));
  }
  void TearDown() override {
    if (device_.empty()) return;
    EXPECT_EQ(std::system(("losetup -d " + device_).c_str()), 0);
  }
  static constexpr uint64_t kSize = kMiB;  // bytes
  TempDir dir_;
  std::string device_;
};

TEST_F(BlockDevice, KeepsItsSize) {
  auto source = FileSource::Open(device_);
  ASSERT_TRUE(source);
  EXPECT_EQ((*source)->Size(), kSize);
  EXPECT_TRUE((*source)->is_block_device());
  EXPECT_EQ((*source)->Identity()->size, kSize);
  auto store = FileStore::Open(device_, FileStore::Mode::kExisting);
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->SetSize(kSize + 1).error().code, ErrorCode::kNoSpace);
  EXPECT_TRUE((*store)->SetSize(10));
  EXPECT_EQ((*store)->Size(), kSize);
  EXPECT_EQ((*store)->WriteAt(kSize - 1, AsBytes("xy")).error().code, ErrorCode::kNoSpace);
  ASSERT_TRUE((*store)->WriteAt(kSize - 2, AsBytes("xy")));
  ASSERT_TRUE((*store)->WriteZeros(4096, 8192));
  ASSERT_TRUE((*store)->WriteZeros(20001, 77));
  ByteVector bytes(kSize);
  ASSERT_TRUE(ReadExact(**store, 0, bytes));
  EXPECT_EQ(std::ranges::count(bytes, 0), 8192 + 77);
  EXPECT_EQ(bytes.back(), 'y');
  EXPECT_TRUE(ImageLock::Acquire((*store)->fd(), device_));
}

TEST_F(BlockDevice, IsUndoneInItsBytes) {
  auto source = FileSource::Open(device_);
  auto store = FileStore::Open(device_, FileStore::Mode::kExisting);
  ASSERT_TRUE(source && store);
  Overlay overlay(**source);
  ASSERT_TRUE(overlay.WriteAt(100, AsBytes("new")));
  ASSERT_TRUE(overlay.SetSize(kSize / 2));  // a wish that a device does not grant
  auto record = UndoRecord::Create(dir_.File("undo"), device_, overlay);
  ASSERT_TRUE(record);
  EXPECT_EQ((*record)->new_size(), kSize);
  EXPECT_EQ((*record)->patch_count(), 1u);
  ASSERT_TRUE((*record)->WriteNew(**store));
  EXPECT_EQ(*(*record)->Compare(**store), UndoRecord::Match::kNew);
  ASSERT_TRUE((*record)->WriteOld(**store));
  EXPECT_EQ(*(*record)->Compare(**store), UndoRecord::Match::kOld);
  EXPECT_EQ(dir_.Get("backing"), std::string(kSize, 'o'));

  ASSERT_TRUE(overlay.WriteAt(kSize, AsBytes("x")));
  auto larger = UndoRecord::Create(dir_.File("undo2"), device_, overlay);
  ASSERT_FALSE(larger);
  EXPECT_EQ(larger.error().code, ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace imgfsck
