// SPDX-License-Identifier: Apache-2.0
// The store's own manners, and then an undo record on it: an error or a crash at any operation of a
// commit, or of a rollback, leaves an image that the record still recognises and takes to either
// end.
#include "io/fault.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "io/undo_record.h"
#include "temp_dir.h"

namespace imgfsck {
namespace {

using Kind = FaultPlan::Kind;
using Unsynced = FaultPlan::Unsynced;

TEST(FaultStore, FailsOnceAtTheGivenOperation) {
  FaultStore store(ByteVector(100, 1), {.kind = Kind::kWrite, .at = 2});
  ASSERT_TRUE(store.WriteAt(0, AsBytes("a")));
  EXPECT_FALSE(store.Fired());
  auto failed = store.WriteAt(1, AsBytes("b"));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_EQ(failed.error().offset, 1u);
  EXPECT_TRUE(store.Fired());
  ASSERT_TRUE(store.WriteAt(2, AsBytes("c")));
  EXPECT_EQ(AsText(Bytes(store.Survivor()).first(4)), "a\1c\1");
  EXPECT_EQ(store.WritesSeen(), 3u);
}

TEST(FaultStore, EachKindHitsItsOwn) {
  ByteVector buffer(10);
  FaultStore read(ByteVector(100), {.kind = Kind::kRead, .at = 1});
  EXPECT_FALSE(read.ReadAt(0, buffer));
  EXPECT_TRUE(read.ReadAt(0, buffer));
  FaultStore sync({}, {.kind = Kind::kSync, .at = 1});
  EXPECT_FALSE(sync.Sync());
  EXPECT_TRUE(sync.Sync());
  FaultStore truncate({}, {.kind = Kind::kTruncate, .at = 1});
  EXPECT_TRUE(truncate.WriteAt(0, AsBytes("x")));
  EXPECT_FALSE(truncate.SetSize(5));
  EXPECT_EQ(truncate.Size(), 1u);
  FaultStore space({}, {.kind = Kind::kNoSpace, .at = 2});
  EXPECT_TRUE(space.WriteAt(0, AsBytes("x")));
  EXPECT_EQ(space.SetSize(9).error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(space.WriteAt(UINT64_MAX, AsBytes("x")).error().code, ErrorCode::kNoSpace);
  FaultStore cut({}, {.kind = Kind::kShortWrite, .at = 1});
  EXPECT_FALSE(cut.WriteAt(0, AsBytes("abcd")));
  EXPECT_EQ(AsText(cut.Survivor()), "ab");
}

TEST(FaultStore, ACrashLosesWhatWasNotSynced) {
  for (Unsynced unsynced : {Unsynced::kKeep, Unsynced::kLose}) {
    FaultStore store(ByteVector(2, '.'), {.kind = Kind::kCrash, .at = 3, .unsynced = unsynced});
    ASSERT_TRUE(store.WriteAt(0, AsBytes("a")));
    ASSERT_TRUE(store.Sync());
    ASSERT_TRUE(store.WriteAt(1, AsBytes("b")));
    EXPECT_FALSE(store.WriteAt(2, AsBytes("c")));
    ByteVector buffer(1);
    EXPECT_FALSE(store.ReadAt(0, buffer));
    EXPECT_FALSE(store.WriteAt(0, buffer));
    EXPECT_FALSE(store.SetSize(0));
    EXPECT_FALSE(store.Sync());
    EXPECT_EQ(AsText(store.Survivor()), unsynced == Unsynced::kKeep ? "ab" : "a.");
  }
}

TEST(FaultStore, AScrambleTearsAtSectorsAndRepeats) {
  std::vector<ByteVector> outcomes;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const FaultPlan plan{Kind::kCrash, 2, Unsynced::kScramble, seed};
    FaultStore store(ByteVector(4096, 0), plan), twin(ByteVector(4096, 0), plan);
    for (FaultStore* each : {&store, &twin}) {
      ASSERT_TRUE(each->WriteAt(100, ByteVector(2000, 1)));
      EXPECT_FALSE(each->WriteAt(2500, ByteVector(1000, 2)));
    }
    ASSERT_EQ(store.Survivor(), twin.Survivor());
    for (size_t i = 513; i < 2000; ++i) {
      if (i % kSector != 0) {
        ASSERT_EQ(store.Survivor()[i], store.Survivor()[i - 1]) << i;
      }
    }
    if (std::ranges::find(outcomes, store.Survivor()) == outcomes.end()) {
      outcomes.push_back(store.Survivor());
    }
  }
  EXPECT_GT(outcomes.size(), 10u);
}

struct Scene {
  ByteVector old_bytes, new_bytes;
  std::unique_ptr<UndoRecord> record;
};

Scene MakeScene(const TempDir& dir, int size_change) {
  std::mt19937_64 random(11);
  Scene scene;
  scene.old_bytes.resize(30000);
  for (auto& byte : scene.old_bytes) byte = static_cast<uint8_t>(random());
  MemoryStore base(scene.old_bytes);
  Overlay overlay(base);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(overlay.WriteAt(random() % 29000, ByteVector(random() % 2000, 0xDD)));
  }
  EXPECT_TRUE(overlay.SetSize(static_cast<uint64_t>(30000 + size_change * 9000)));
  if (size_change > 0) {
    EXPECT_TRUE(overlay.WriteAt(35000, AsBytes("tail")));
  }
  scene.new_bytes.resize(overlay.Size());
  EXPECT_TRUE(ReadExact(overlay, 0, scene.new_bytes));
  auto record = UndoRecord::Create(dir.File("undo" + std::to_string(size_change)), "i", overlay);
  EXPECT_TRUE(record);
  if (record) scene.record = std::move(*record);
  return scene;
}

class CommitUnderFaults : public testing::TestWithParam<std::tuple<int, Kind, Unsynced, bool>> {};

TEST_P(CommitUnderFaults, EndsWhereTheRecordWants) {
  const auto [size_change, kind, unsynced, forwards] = GetParam();
  TempDir dir;
  const Scene scene = MakeScene(dir, size_change);
  ASSERT_TRUE(scene.record);
  const ByteVector& start = forwards ? scene.old_bytes : scene.new_bytes;
  const ByteVector& goal = forwards ? scene.new_bytes : scene.old_bytes;
  bool fired = true;
  uint64_t at = 1;
  for (; fired; ++at) {
    ASSERT_LT(at, 100u);
    FaultStore store(start, {.kind = kind, .at = at, .unsynced = unsynced, .seed = at});
    const Status status = forwards ? scene.record->WriteNew(store) : scene.record->WriteOld(store);
    fired = store.Fired();
    ASSERT_EQ(status.has_value(), !fired);
    MemoryStore image(store.Survivor());
    if (!fired) {
      ASSERT_EQ(image.bytes(), goal);
    }
    // A scramble may tear a patch anywhere between sectors, and keep or lose the length.
    auto match = scene.record->Compare(image);
    ASSERT_TRUE(match);
    ASSERT_NE(*match, UndoRecord::Match::kForeign) << "at " << at;
    MemoryStore other(store.Survivor());
    ASSERT_TRUE(scene.record->WriteNew(image));
    ASSERT_EQ(image.bytes(), scene.new_bytes);
    ASSERT_TRUE(scene.record->WriteOld(other));
    ASSERT_EQ(other.bytes(), scene.old_bytes);
  }
  if (kind != Kind::kTruncate || size_change != 0) {
    EXPECT_GT(at, 2u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryOperation, CommitUnderFaults,
    testing::Combine(testing::Values(-1, 0, 1),
                     testing::Values(Kind::kWrite, Kind::kSync, Kind::kTruncate, Kind::kNoSpace,
                                     Kind::kCrash),
                     testing::Values(Unsynced::kKeep, Unsynced::kLose, Unsynced::kScramble),
                     testing::Bool()));

}  // namespace
}  // namespace imgfsck
