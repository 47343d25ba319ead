// SPDX-License-Identifier: Apache-2.0
// Commit, recovery and rollback with every write, sync and step failing in turn: whatever is left
// is the old image, the new one, or one that Recover() turns into it.
#include "repair/transaction.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "io/fault.h"
#include "repair/engine.h"
#include "tests/unit/bytes.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

using Kind = FaultPlan::Kind;
using Unsynced = FaultPlan::Unsynced;

struct Case {
  const char* name;
  ByteVector old_bytes, new_bytes;
};

ByteVector Pattern(size_t size, uint8_t seed) {
  ByteVector bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(seed + i * 7 + i / 251);
  return bytes;
}

std::vector<Case> Cases() {
  const ByteVector old_bytes = Pattern(40 * 1024, 3);
  ByteVector same_size = old_bytes;
  for (size_t at : {0u, 700u, 5000u, 5001u, 20000u, 40959u}) same_size[at] ^= 0xff;
  ByteVector longer = same_size;
  longer.resize(50 * 1024 + 100, 9);
  ByteVector shorter = same_size;
  shorter.resize(30 * 1024 + 1);
  return {{"same size", old_bytes, same_size},
          {"longer", old_bytes, longer},
          {"shorter", old_bytes, shorter}};
}

void Fill(Overlay& overlay, const ByteVector& bytes) {
  ASSERT_TRUE(overlay.SetSize(bytes.size()));
  ASSERT_TRUE(overlay.WriteAt(0, bytes));
}

// A folder with the image's name and records; the image's bytes live in the store under test.
class World {
 public:
  explicit World(const Case& c) : case_((UseFastFolder(), c)) {
    image_path_ = folder_.Put("disk", AsText(c.old_bytes));
  }
  const std::string& image_path() const { return image_path_; }
  std::string undo_path() const { return folder_.File("disk.imgfsck-undo"); }
  bool HasUndo() const { return std::filesystem::exists(undo_path()); }
  bool HasPointer() const { return std::filesystem::exists(folder_.File("disk.imgfsck-journal")); }
  size_t Files() const { return folder_.Entries(); }

  Result<CommitResult> CommitOn(ByteStore& store, const CommitOptions& options = {}) {
    MemoryStore base(case_.old_bytes);
    Overlay overlay(base);
    Fill(overlay, case_.new_bytes);
    return CommitTo(store, image_path_, overlay, options);
  }

 private:
  // Thousands of records are written; where they are durable does not matter here.
  static void UseFastFolder() {
    if (std::filesystem::is_directory("/dev/shm")) setenv("TMPDIR", "/dev/shm", 0);
  }
  const Case& case_;
  TempDir folder_;
  std::string image_path_;
};

// Runs `attempt` with the n-th operation of a kind failing, for n = 1, 2 … until nothing fails.
template <class Attempt>
void ForEveryFault(Kind kind, const Attempt& attempt) {
  for (uint64_t n = 1;; ++n) {
    ASSERT_LT(n, 1000u);
    FaultPlan plan;
    plan.kind = kind;
    plan.at = n;
    if (!attempt(plan)) return;
  }
}

template <class Attempt>
void ForEveryCrash(const Attempt& attempt) {
  for (Unsynced unsynced : {Unsynced::kKeep, Unsynced::kLose, Unsynced::kScramble}) {
    for (uint64_t seed = 1; seed <= (unsynced == Unsynced::kScramble ? 4u : 1u); ++seed) {
      for (uint64_t n = 1;; ++n) {
        ASSERT_LT(n, 1000u);
        if (!attempt(FaultPlan{Kind::kCrash, n, unsynced, seed})) break;
      }
    }
  }
}

TEST(Transaction, CommitThenRollbackIsByteIdentical) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    World world(c);
    MemoryStore store(c.old_bytes);
    auto committed = world.CommitOn(store);
    ASSERT_TRUE(committed) << committed.error().message;
    EXPECT_EQ(committed->undo_path, world.undo_path());
    EXPECT_EQ(store.bytes(), c.new_bytes);
    EXPECT_FALSE(world.HasPointer());
    auto back = RollbackTo(store, world.image_path(), world.undo_path());
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, RollbackOutcome::kRolledBack);
    EXPECT_EQ(store.bytes(), c.old_bytes);
    EXPECT_FALSE(world.HasPointer());
    EXPECT_EQ(RollbackTo(store, world.image_path(), world.undo_path()).value(),
              RollbackOutcome::kNothingToDo);
  }
}

TEST(Transaction, WithoutUndoNothingStaysBeside) {
  const auto cases = Cases();
  World world(cases[0]);
  MemoryStore store(cases[0].old_bytes);
  CommitOptions options;
  options.keep_undo = false;
  auto committed = world.CommitOn(store, options);
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->undo_path, "");
  EXPECT_EQ(world.Files(), 1u);
  EXPECT_EQ(store.bytes(), cases[0].new_bytes);
}

TEST(Transaction, EveryFailedWriteOrSyncIsTakenBack) {
  for (const Case& c : Cases()) {
    for (Kind kind :
         {Kind::kWrite, Kind::kShortWrite, Kind::kNoSpace, Kind::kSync, Kind::kTruncate}) {
      ForEveryFault(kind, [&](const FaultPlan& plan) {
        World world(c);
        FaultStore store(c.old_bytes, plan);
        auto committed = world.CommitOn(store);
        EXPECT_EQ(committed.has_value(), !store.Fired());
        EXPECT_EQ(BytesOf(store), store.Fired() ? c.old_bytes : c.new_bytes)
            << c.name << " operation " << plan.at;
        EXPECT_FALSE(world.HasPointer());
        EXPECT_EQ(world.HasUndo(), !store.Fired());
        return store.Fired();
      });
    }
  }
}

TEST(Transaction, EveryCrashIsFinishedByTheNextRun) {
  for (const Case& c : Cases()) {
    ForEveryCrash([&](const FaultPlan& plan) {
      World world(c);
      FaultStore store(c.old_bytes, plan);
      auto committed = world.CommitOn(store);
      EXPECT_EQ(committed.has_value(), !store.Fired());
      MemoryStore survivor(store.Survivor());
      if (store.Fired()) {
        EXPECT_TRUE(world.HasPointer());
        auto recovered = RecoverTo(survivor, world.image_path(), "");
        EXPECT_TRUE(recovered) << recovered.error().message;
      }
      EXPECT_EQ(survivor.bytes(), c.new_bytes) << c.name << " write " << plan.at;
      EXPECT_FALSE(world.HasPointer());
      EXPECT_TRUE(RollbackTo(survivor, world.image_path(), world.undo_path()));
      EXPECT_EQ(survivor.bytes(), c.old_bytes);
      return store.Fired();
    });
  }
}

TEST(Transaction, CrashBetweenAnyTwoStepsIsFinished) {
  const std::vector<CommitStep> steps = {CommitStep::kLocked,         CommitStep::kRecordDurable,
                                         CommitStep::kPointerDurable, CommitStep::kPatched,
                                         CommitStep::kApplied,        CommitStep::kPointerRemoved};
  for (const Case& c : Cases()) {
    for (CommitStep stop : steps) {
      World world(c);
      MemoryStore store(c.old_bytes);
      CommitOptions options;
      options.at_step = [&](CommitStep step) -> Status {
        if (step == stop) return Error{ErrorCode::kIo, "the machine stopped", {}};
        return Ok();
      };
      EXPECT_FALSE(world.CommitOn(store, options));
      auto recovered = RecoverTo(store, world.image_path(), "");
      ASSERT_TRUE(recovered) << recovered.error().message;
      EXPECT_FALSE(world.HasPointer());
      const bool before = stop == CommitStep::kLocked || stop == CommitStep::kRecordDurable;
      EXPECT_EQ(store.bytes(), before ? c.old_bytes : c.new_bytes);
      const bool pointed = stop == CommitStep::kPointerDurable || stop == CommitStep::kPatched ||
                           stop == CommitStep::kApplied;
      EXPECT_EQ(*recovered, pointed ? RecoverOutcome::kFinished : RecoverOutcome::kNothingToDo);
    }
  }
}

TEST(Transaction, EveryCrashOfARecoveryIsFinishedByTheNext) {
  const auto cases = Cases();
  for (const Case& c : cases) {
    ForEveryCrash([&](const FaultPlan& plan) {
      World world(c);
      FaultStore first(c.old_bytes, FaultPlan{Kind::kCrash, 2, Unsynced::kScramble, 7});
      EXPECT_FALSE(world.CommitOn(first));
      FaultStore second(first.Survivor(), plan);
      auto recovered = RecoverTo(second, world.image_path(), "");
      EXPECT_EQ(recovered.has_value(), !second.Fired())
          << (recovered ? "" : recovered.error().message);
      MemoryStore third(second.Survivor());
      EXPECT_TRUE(RecoverTo(third, world.image_path(), ""));
      EXPECT_EQ(third.bytes(), c.new_bytes);
      EXPECT_FALSE(world.HasPointer());
      return second.Fired();
    });
  }
}

TEST(Transaction, EveryFailureOfARollbackLeavesOneOfTheTwo) {
  for (const Case& c : Cases()) {
    for (Kind kind : {Kind::kWrite, Kind::kShortWrite, Kind::kSync, Kind::kTruncate}) {
      ForEveryFault(kind, [&](const FaultPlan& plan) {
        World world(c);
        MemoryStore store(c.old_bytes);
        EXPECT_TRUE(world.CommitOn(store));
        FaultStore faulty(store.bytes(), plan);
        auto back = RollbackTo(faulty, world.image_path(), world.undo_path());
        EXPECT_EQ(back.has_value(), !faulty.Fired()) << (back ? "" : back.error().message);
        EXPECT_EQ(BytesOf(faulty), faulty.Fired() ? c.new_bytes : c.old_bytes);
        EXPECT_FALSE(world.HasPointer());
        return faulty.Fired();
      });
    }
    ForEveryCrash([&](const FaultPlan& plan) {
      World world(c);
      MemoryStore store(c.old_bytes);
      EXPECT_TRUE(world.CommitOn(store));
      FaultStore faulty(store.bytes(), plan);
      auto back = RollbackTo(faulty, world.image_path(), world.undo_path());
      EXPECT_EQ(back.has_value(), !faulty.Fired()) << (back ? "" : back.error().message);
      MemoryStore survivor(faulty.Survivor());
      EXPECT_TRUE(RecoverTo(survivor, world.image_path(), ""));
      EXPECT_EQ(survivor.bytes(), faulty.Fired() ? c.new_bytes : c.old_bytes);
      EXPECT_FALSE(world.HasPointer());
      return faulty.Fired();
    });
  }
}

TEST(Transaction, CrashBetweenTheStepsOfARollback) {
  for (const Case& c : Cases()) {
    for (CommitStep stop :
         {CommitStep::kLocked, CommitStep::kPointerDurable, CommitStep::kRecordDurable,
          CommitStep::kPatched, CommitStep::kApplied, CommitStep::kPointerRemoved}) {
      World world(c);
      MemoryStore store(c.old_bytes);
      ASSERT_TRUE(world.CommitOn(store));
      EXPECT_FALSE(
          RollbackTo(store, world.image_path(), world.undo_path(), [&](CommitStep step) -> Status {
            if (step == stop) return Error{ErrorCode::kIo, "stopped", {}};
            return Ok();
          }));
      ASSERT_TRUE(RecoverTo(store, world.image_path(), ""));
      EXPECT_TRUE(store.bytes() == c.new_bytes || store.bytes() == c.old_bytes);
      EXPECT_FALSE(world.HasPointer());
    }
  }
}

TEST(Transaction, NothingIsWrittenOverSomebodyElsesBytes) {
  const auto cases = Cases();
  const Case& c = cases[1];
  World world(c);
  MemoryStore store(c.old_bytes);
  ASSERT_TRUE(world.CommitOn(store));
  ByteVector foreign = store.bytes();
  foreign[20000] ^= 1;  // one byte that the repair wrote
  MemoryStore changed(foreign);
  auto refused = RollbackTo(changed, world.image_path(), world.undo_path());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
  EXPECT_EQ(changed.bytes(), foreign);
  MemoryStore longer(store.bytes());
  ASSERT_TRUE(longer.SetSize(longer.Size() + 1));
  EXPECT_FALSE(RollbackTo(longer, world.image_path(), world.undo_path()));
}

TEST(Transaction, RecoveryRefusesAForeignImage) {
  const auto cases = Cases();
  const Case& c = cases[0];
  World world(c);
  FaultStore store(c.old_bytes, FaultPlan{Kind::kCrash, 3, Unsynced::kKeep, 1});
  ASSERT_FALSE(world.CommitOn(store));
  ByteVector foreign = store.Survivor();
  foreign[5000] ^= 0x55;
  MemoryStore changed(foreign);
  auto refused = RecoverTo(changed, world.image_path(), "");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
  EXPECT_EQ(changed.bytes(), foreign);
  EXPECT_TRUE(world.HasPointer());
  // A rollback of what is half there has to wait for the recovery.
  MemoryStore half(store.Survivor());
  EXPECT_FALSE(RollbackTo(half, world.image_path(), world.undo_path()));
}

TEST(Transaction, RecoveryNeedsItsRecord) {
  const auto cases = Cases();
  World world(cases[0]);
  FaultStore store(cases[0].old_bytes, FaultPlan{Kind::kCrash, 1, Unsynced::kKeep, 1});
  ASSERT_FALSE(world.CommitOn(store));
  std::filesystem::remove(world.undo_path());
  MemoryStore survivor(store.Survivor());
  auto refused = RecoverTo(survivor, world.image_path(), "");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
}

TEST(Transaction, ChangedSinceTheCheckIsRefused) {
  const auto cases = Cases();
  const Case& c = cases[0];
  TempDir folder;
  const std::string path = folder.Put("disk", AsText(c.old_bytes));
  auto source = FileSource::Open(path);
  ASSERT_TRUE(source);
  Overlay overlay(**source);
  Fill(overlay, c.new_bytes);
  CheckedState checked;
  checked.identity = (*source)->Identity().value();
  uint64_t patches = 0, bytes = 0;
  ASSERT_TRUE(MeasurePatches(overlay, &patches, &bytes, &checked.patch_hash));
  EXPECT_GT(patches, 0u);
  CheckedState other = checked;
  other.patch_hash[0] = other.patch_hash[0] == '0' ? '1' : '0';
  EXPECT_EQ(Commit(path, overlay, other, {}).error().code, ErrorCode::kConflict);
  other = checked;
  other.identity.mtime_ns -= 1;
  EXPECT_EQ(Commit(path, overlay, other, {}).error().code, ErrorCode::kConflict);
  EXPECT_EQ(folder.Get("disk"), AsText(c.old_bytes));
  EXPECT_EQ(folder.Entries(), 1u);
  auto committed = Commit(path, overlay, checked, {});
  ASSERT_TRUE(committed) << committed.error().message;
  EXPECT_EQ(folder.Get("disk"), AsText(c.new_bytes));
  // A second record never replaces the first.
  auto back = Rollback(path, committed->undo_path);
  ASSERT_TRUE(back);
  EXPECT_EQ(folder.Get("disk"), AsText(c.old_bytes));
  EXPECT_EQ(FreeUndoPath(path), path + ".imgfsck-undo.2");
}

}  // namespace
}  // namespace imgfsck
