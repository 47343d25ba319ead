// SPDX-License-Identifier: Apache-2.0
// The trial of a randomly damaged image, for formats small enough to live in memory: the check and
// both repairs, and what has to hold for any damage whatever.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>

#include "repair/engine.h"
#include "repair/transaction.h"
#include "tests/unit/bytes.h"
#include "tests/unit/io/temp_dir.h"
#include "tests/unit/repair/guest_reader.h"
#include "tests/unit/sanitized.h"

namespace imgfsck {

struct Trial {
  ByteVector sound, damaged;
  std::vector<HostRange> stored;  // guest data in `sound`, a cluster or a stream each
  // Bytes that two claim, found without the analyzers; empty when there are none.
  std::function<std::string(const ByteVector&)> owned_twice;
  std::string passphrase;
  Driver::BackingReader backing;
  std::set<Problem> hopeless;  // corruptions that nothing in the file can mend
};

// Calls `one` with the seeds of this run: some of them, 1000 in a long run, IMGFSCK_SEED alone when
// that is set.
inline void ForEachSeed(const std::function<void(uint64_t)>& one) {
  if (const char* alone = std::getenv("IMGFSCK_SEED")) return one(std::stoull(alone));
  uint64_t last = std::getenv("IMGFSCK_LONG") != nullptr ? 1000 : kSanitized ? 25 : 80;
  if (const char* more = std::getenv("IMGFSCK_SEEDS")) last = std::stoull(more);
  for (uint64_t seed = 1; seed <= last && !testing::Test::HasFatalFailure(); ++seed) one(seed);
}

// After a repair a sector reads as before, as it did before the damage, or is declared lost; what
// could be read and is no part of the declared changes reads the same.
inline void ExpectFairDisk(const Disk& original, const Disk& before, const Disk& after,
                           const Plan& plan, const std::string& name) {
  ExpectOnlyDeclaredChanges(before, after, plan, name);
  for (size_t i = 0; i < after.size(); ++i) {
    if (!after[i]) continue;
    bool same = (i < before.size() && after[i] == before[i]) ||
                (i < original.size() && after[i] == original[i]);
    bool unreadable = i >= before.size() || !before[i];
    bool declared = std::any_of(plan.changed.begin(), plan.changed.end(), [&](const auto& range) {
      return range.guest.Contains(i * kSector);
    });
    ASSERT_TRUE(same || unreadable || declared) << name << ": sector " << i;
  }
}

// What damage left of the guest's data is somewhere in the repaired file.
inline void ExpectDataKept(const Trial& trial, const ByteVector& mended) {
  for (const HostRange& range : trial.stored) {
    if (range.end() > trial.damaged.size()) continue;
    auto begin = trial.sound.begin() + static_cast<ptrdiff_t>(range.offset.value);
    auto end = begin + static_cast<ptrdiff_t>(range.length);
    auto place = static_cast<ptrdiff_t>(range.offset.value);
    if (!std::equal(begin, end, trial.damaged.begin() + place)) continue;
    bool in_place = range.end() <= mended.size() && std::equal(begin, end, mended.begin() + place);
    if (in_place) continue;
    std::boyer_moore_searcher searcher(begin, end);
    EXPECT_NE(std::search(mended.begin(), mended.end(), searcher), mended.end())
        << "data at " << range.offset.value << " is gone";
  }
}

inline std::string_view TextOf(const ByteVector& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The plan on a file, and back again.
inline void ExpectExactRollback(const Trial& trial, const Format& format,
                                const RepairOptions& options, const ByteVector& mended) {
  TempDir dir;
  std::string path = dir.Put("disk", TextOf(trial.damaged)), undo;
  {
    auto file = FileSource::Open(path);
    ASSERT_TRUE(file);
    auto plan = MakePlan(**file, format, options);
    ASSERT_TRUE(plan);
    auto done = Commit(path, *plan->overlay, {*(*file)->Identity(), plan->patch_hash}, {});
    ASSERT_TRUE(done) << done.error().message;
    undo = done->undo_path;
  }
  EXPECT_TRUE(dir.Get("disk") == TextOf(mended)) << "the file is not what was planned";
  EXPECT_EQ(Rollback(path, undo), RollbackOutcome::kRolledBack);
  EXPECT_TRUE(dir.Get("disk") == TextOf(trial.damaged)) << "rolled back to something else";
}

// For a closer look at one seed: the folder in IMGFSCK_KEEP gets the images.
inline void Keep(const char* name, const ByteVector& bytes) {
  const char* folder = std::getenv("IMGFSCK_KEEP");
  if (folder == nullptr) return;
  std::ofstream(std::string(folder) + "/" + name, std::ios::binary) << TextOf(bytes);
}

inline void TryImage(const Format& format, const Trial& trial, const std::string& name) {
  MemoryStore sound(trial.sound), store(trial.damaged);
  Keep("sound", trial.sound);
  Keep("damaged", trial.damaged);
  Disk original = ReadDisk(format, sound, trial.passphrase, trial.backing);
  Disk before = ReadDisk(format, store, trial.passphrase, trial.backing);
  for (RepairMode mode : {RepairMode::kSafe, RepairMode::kAll}) {
    SCOPED_TRACE(name + (mode == RepairMode::kSafe ? " safe" : " all"));
    RepairOptions options;
    options.mode = mode;
    options.check.deep = true;
    options.check.passphrase = trial.passphrase;
    auto plan = MakePlan(store, format, options);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_TRUE(store.bytes() == trial.damaged);
    EXPECT_EQ(DroppedPasses(*plan), "");
    Disk after = ReadDisk(format, *plan->overlay, trial.passphrase, trial.backing);
    ExpectFairDisk(original, before, after, *plan, name);
    if (mode == RepairMode::kSafe) {
      EXPECT_TRUE(plan->changed.empty());
    } else {
      for (const Finding& f : plan->Final().findings.kept()) {
        bool left =
            f.severity_or_default() == Severity::kCorruption && !trial.hopeless.contains(f.problem);
        EXPECT_FALSE(left) << f.Message();
      }
    }
    auto second = MakePlan(*plan->overlay, format, options);
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->Empty());
    ByteVector mended = BytesOf(*plan->overlay);
    Keep(mode == RepairMode::kSafe ? "safe" : "all", mended);
    ExpectDataKept(trial, mended);
    const Findings& left = plan->Final().findings;
    if (left.Units(Severity::kCorruption) == 0 && left.Units(Severity::kLeak) == 0) {
      EXPECT_EQ(trial.owned_twice(mended), "");
    }
    if (!plan->Empty()) ExpectExactRollback(trial, format, options, mended);
  }
}

}  // namespace imgfsck
