// SPDX-License-Identifier: Apache-2.0
#include "io/undo_record.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>

#include "base/interrupt.h"
#include "temp_dir.h"
#include "tests/unit/bytes.h"

namespace imgfsck {
namespace {

using State = UndoRecord::State;
using Match = UndoRecord::Match;

// Old bytes, and an overlay that makes the new ones of them.
struct Change {
  MemoryStore base;
  Overlay overlay;
  explicit Change(ByteVector old_bytes) : base(std::move(old_bytes)), overlay(base) {}
};

std::unique_ptr<Change> SomeChange(uint64_t seed, int size_change) {
  auto change = std::make_unique<Change>(Noise(100000, seed));
  std::mt19937_64 random(seed + 1);
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(change->overlay.WriteAt(random() % 99000, Noise(random() % 900 + 1, random())));
  }
  if (size_change < 0) {
    EXPECT_TRUE(change->overlay.SetSize(60123));
  }
  if (size_change > 0) {
    EXPECT_TRUE(change->overlay.WriteAt(140000, AsBytes("grown")));
  }
  return change;
}

class UndoRecordTest : public testing::Test {
 protected:
  TempDir dir_;
  std::string path_ = dir_.File("image.imgfsck-undo");
};

class UndoRecordSizes : public UndoRecordTest, public testing::WithParamInterface<int> {};

TEST_P(UndoRecordSizes, TakesTheImageBothWays) {
  const auto change = SomeChange(5, GetParam());
  const ByteVector old_bytes = change->base.bytes(), new_bytes = BytesOf(change->overlay);
  ASSERT_NE(old_bytes, new_bytes);
  {
    auto record = UndoRecord::Create(path_, "some/image", change->overlay);
    ASSERT_TRUE(record) << record.error().message;
    EXPECT_EQ((*record)->state(), State::kPrepared);
  }
  EXPECT_EQ(dir_.Entries(), 1u);
  EXPECT_EQ(change->base.bytes(), old_bytes);
  auto opened = UndoRecord::Open(path_);
  ASSERT_TRUE(opened) << opened.error().message;
  UndoRecord& record = **opened;
  EXPECT_EQ(record.image_path(), "some/image");
  EXPECT_EQ(record.old_size(), old_bytes.size());
  EXPECT_EQ(record.new_size(), new_bytes.size());
  EXPECT_GE(record.patch_count(), 10u);

  MemoryStore image(old_bytes);
  EXPECT_EQ(*record.Compare(image), Match::kOld);
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(record.WriteNew(image));
    EXPECT_EQ(image.bytes(), new_bytes);
    EXPECT_EQ(*record.Compare(image), Match::kNew);
  }
  ASSERT_TRUE(record.SetState(State::kApplied));
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(record.WriteOld(image));
    EXPECT_EQ(image.bytes(), old_bytes);
    EXPECT_EQ(*record.Compare(image), Match::kOld);
  }
  auto again = UndoRecord::Open(path_);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->state(), State::kApplied);
  EXPECT_EQ(dir_.Entries(), 1u);
}

TEST_P(UndoRecordSizes, KnowsMixturesFromStrangers) {
  const auto change = SomeChange(6, GetParam());
  const ByteVector old_bytes = change->base.bytes(), new_bytes = BytesOf(change->overlay);
  auto record = UndoRecord::Create(path_, "image", change->overlay);
  ASSERT_TRUE(record);
  // Any split in whole sectors, at either length, is a mixture, and leads to either end.
  std::mt19937_64 random(7);
  for (int round = 0; round < 30; ++round) {
    MemoryStore image(random() % 2 != 0 ? old_bytes : new_bytes);
    for (uint64_t at = 0; at < image.Size(); at += kSector) {
      const ByteVector& from = random() % 2 != 0 ? old_bytes : new_bytes;
      const uint64_t end = std::min({at + kSector, image.Size(), uint64_t{from.size()}});
      if (at < end) {
        ASSERT_TRUE(image.WriteAt(at, Bytes(from).subspan(at, end - at)));
      }
    }
    ASSERT_EQ(*(*record)->Compare(image), Match::kMixed);
    ASSERT_TRUE((*record)->WriteNew(image));
    ASSERT_EQ(image.bytes(), new_bytes);
  }
  uint64_t patched_at = 0;
  ASSERT_TRUE((*record)->ForEachPatch([&](const UndoRecord::Patch& patch) {
    if (patch.new_bytes.size() > 300 && patch.old_bytes.size() > 300) patched_at = patch.offset;
    return Ok();
  }));
  ASSERT_NE(patched_at, 0u);
  MemoryStore image(new_bytes);
  image.bytes()[patched_at + 200] ^= 0x55;
  EXPECT_EQ(*(*record)->Compare(image), Match::kForeign);
  image.bytes() = new_bytes;
  ASSERT_TRUE(image.SetSize(std::max(new_bytes.size(), old_bytes.size()) + 1));
  EXPECT_EQ(*(*record)->Compare(image), Match::kForeign);
  ASSERT_TRUE(image.SetSize(std::min(new_bytes.size(), old_bytes.size()) - 1));
  EXPECT_EQ(*(*record)->Compare(image), Match::kForeign);
}

INSTANTIATE_TEST_SUITE_P(SizeChange, UndoRecordSizes, testing::Values(-1, 0, 1));

TEST_F(UndoRecordTest, AHalfWrittenSectorIsForeign) {
  Change change(ByteVector(4096, 1));
  ASSERT_TRUE(change.overlay.WriteAt(1024, ByteVector(512, 2)));
  auto record = UndoRecord::Create(path_, "image", change.overlay);
  ASSERT_TRUE(record);
  MemoryStore image(ByteVector(4096, 1));
  std::fill_n(image.bytes().begin() + 1024, 256, uint8_t{2});
  EXPECT_EQ(*(*record)->Compare(image), Match::kForeign);
}

TEST_F(UndoRecordTest, AnotherImageWithTheSameBytesElsewhereIsForeign) {
  Change change(ByteVector(8192, 1));
  ASSERT_TRUE(change.overlay.WriteAt(100, AsBytes("new header")));
  ASSERT_TRUE(change.overlay.WriteAt(5000, AsBytes("new")));
  auto record = UndoRecord::Create(path_, "image", change.overlay);
  ASSERT_TRUE(record);
  MemoryStore image(BytesOf(change.overlay));
  EXPECT_EQ(*(*record)->Compare(image), Match::kNew);
  image.bytes()[7000] ^= 1;  // guest data: none of our business
  EXPECT_EQ(*(*record)->Compare(image), Match::kNew);
  image.bytes()[300] ^= 1;  // the first sector, outside the patch
  EXPECT_EQ(*(*record)->Compare(image), Match::kForeign);
}

TEST_F(UndoRecordTest, WhatATruncationCutsOffIsKept) {
  ByteVector old_bytes(10 * kMiB, 0);
  for (size_t at :
       {size_t{4 * kMiB}, size_t{4 * kMiB} + 5, size_t{9 * kMiB} - 1, old_bytes.size() - 1}) {
    old_bytes[at] = 0xCC;
  }
  Change change(old_bytes);
  ASSERT_TRUE(change.overlay.SetSize(4 * kMiB));
  auto record = UndoRecord::Create(path_, "image", change.overlay);
  ASSERT_TRUE(record);
  EXPECT_LT(std::filesystem::file_size(path_), 200000u);  // zeros are not kept
  MemoryStore image(old_bytes);
  ASSERT_TRUE((*record)->WriteNew(image));
  EXPECT_EQ(image.Size(), 4 * kMiB);
  EXPECT_EQ(*(*record)->Compare(image), Match::kNew);
  ASSERT_TRUE((*record)->WriteOld(image));
  EXPECT_EQ(image.bytes(), old_bytes);
}

TEST_F(UndoRecordTest, NeverOverwrites) {
  Change change(ByteVector(100, 1));
  ASSERT_TRUE(change.overlay.WriteAt(0, AsBytes("x")));
  dir_.Put("image.imgfsck-undo", "precious");
  auto record = UndoRecord::Create(path_, "image", change.overlay);
  ASSERT_FALSE(record);
  EXPECT_EQ(record.error().code, ErrorCode::kExists);
  EXPECT_EQ(dir_.Get("image.imgfsck-undo"), "precious");
  unlink(path_.c_str());
  dir_.Put("image.imgfsck-undo-journal", "precious");
  EXPECT_FALSE(UndoRecord::Create(path_, "image", change.overlay));
  EXPECT_EQ(dir_.Get("image.imgfsck-undo-journal"), "precious");
  EXPECT_EQ(dir_.Entries(), 1u);
}

TEST_F(UndoRecordTest, AFailureLeavesNothingBehind) {
  Change change(Noise(4 * kMiB, 1));
  ASSERT_TRUE(change.overlay.WriteAt(0, Noise(4 * kMiB, 2)));
  RequestStop();
  auto stopped = UndoRecord::Create(path_, "image", change.overlay);
  ClearStopRequest();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(dir_.Entries(), 0u);
  EXPECT_FALSE(UndoRecord::Create("/nonexistent/dir/undo", "image", change.overlay));

  // A disk that is full half-way, played by a limit on the length of files.
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{2 * kMiB, 2 * kMiB};
    setrlimit(RLIMIT_FSIZE, &limit);
    auto record = UndoRecord::Create(path_, "image", change.overlay);
    _exit(record ? 1 : record.error().code != ErrorCode::kNoSpace ? 2 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: it worked; 2: another error";
  EXPECT_EQ(dir_.Entries(), 0u);
}

TEST_F(UndoRecordTest, AKilledWriterLeavesNoRecord) {
  Change change(Noise(8 * kMiB, 1));
  ASSERT_TRUE(change.overlay.WriteAt(0, Noise(8 * kMiB, 2)));
  // The base kills the process at the n-th read, while patches are copied.
  class Killer : public ByteSource {
   public:
    Killer(const ByteSource& base, int reads) : base_(base), left_(reads) {}
    uint64_t Size() const override { return base_.Size(); }
    Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
      if (left_-- == 0) kill(getpid(), SIGKILL);
      return base_.ReadAt(offset, buffer);
    }

   private:
    const ByteSource& base_;
    mutable int left_;
  };
  for (int reads = 0; reads < 24; reads += 3) {
    const pid_t child = fork();
    if (child == 0) {
      Killer killer(change.base, reads);
      Overlay overlay(killer);
      const bool ready = overlay.WriteAt(0, BytesOf(change.overlay)).has_value();
      _exit(ready && UndoRecord::Create(path_, "image", overlay) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      EXPECT_GT(reads, 12);
      EXPECT_TRUE(UndoRecord::Open(path_));
    } else if (access(path_.c_str(), F_OK) == 0) {
      auto record = UndoRecord::Open(path_);
      ASSERT_FALSE(record) << reads;
      EXPECT_EQ(record.error().code, ErrorCode::kInvalid);
    }
    unlink(path_.c_str());
    unlink((path_ + "-journal").c_str());
  }
}

TEST_F(UndoRecordTest, GarbageIsRefused) {
  const auto expect_invalid = [&](const char* what) {
    auto record = UndoRecord::Open(path_);
    ASSERT_FALSE(record) << what;
    EXPECT_EQ(record.error().code, ErrorCode::kInvalid) << what << ": " << record.error().message;
  };
  EXPECT_EQ(UndoRecord::Open(path_).error().code, ErrorCode::kNotFound);
  dir_.Put("image.imgfsck-undo", "");
  expect_invalid("empty");
  dir_.Put("image.imgfsck-undo", std::string(5000, 'x'));
  expect_invalid("text");
  unlink(path_.c_str());
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  expect_invalid("FIFO");
  unlink(path_.c_str());
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "CREATE TABLE meta(key, value)", nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  expect_invalid("another database");
}

TEST_F(UndoRecordTest, TamperingIsNoticed) {
  const auto change = SomeChange(9, 0);
  ASSERT_TRUE(UndoRecord::Create(path_, "image", change->overlay));
  const std::string good = dir_.Get("image.imgfsck-undo");
  const char* const attacks[] = {
      "UPDATE patch SET new=zeroblob(length(new)) WHERE seq=2",
      "UPDATE patch SET old=zeroblob(length(old)) WHERE seq=2",
      "UPDATE patch SET offset=offset+1 WHERE seq=1",
      "UPDATE patch SET offset=-1 WHERE seq=1",
      "UPDATE patch SET offset=9223372036854775807 WHERE seq=1",
      "UPDATE patch SET new=zeroblob(5000000) WHERE seq=1",
      "UPDATE patch SET new=zeroblob(900000) WHERE seq=1",
      "UPDATE patch SET new='text' WHERE seq=1",
      "UPDATE patch SET seq=1000 WHERE seq=3",
      "DELETE FROM patch WHERE seq=(SELECT max(seq) FROM patch)",
      "DELETE FROM patch",
      "UPDATE meta SET value=value+1 WHERE key='old_size'",
      "UPDATE meta SET value=0 WHERE key='new_size'",
      "UPDATE meta SET value=-5 WHERE key='new_size'",
      "UPDATE meta SET value='x' WHERE key='new_size'",
      "UPDATE meta SET value=9223372036854775807 WHERE key='header_length'",
      "UPDATE meta SET value='other' WHERE key='image'",
      "UPDATE meta SET value='unknown' WHERE key='state'",
      "UPDATE meta SET value=x'00' WHERE key='sha256'",
      "UPDATE meta SET value='0' WHERE key='header_sha256'",
      "UPDATE meta SET value=printf('%.100000c','x') WHERE key='image'",
      "DELETE FROM meta WHERE key='sha256'",
      "CREATE TABLE other(a)",
      "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM patch; END",
      "CREATE INDEX i ON patch(offset)",
      "DROP TABLE patch; CREATE VIEW patch AS SELECT 1 seq, 0 offset, x'' old, x'' new",
      "PRAGMA journal_mode=WAL",
      "PRAGMA user_version=2",
      "PRAGMA application_id=1",
  };
  for (const char* attack : attacks) {
    dir_.Put("image.imgfsck-undo", good);
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, attack, nullptr, nullptr, nullptr), SQLITE_OK) << attack;
    sqlite3_close(db);
    auto record = UndoRecord::Open(path_);
    ASSERT_FALSE(record) << attack;
  }
  dir_.Put("image.imgfsck-undo", good);
  EXPECT_TRUE(UndoRecord::Open(path_));
}

TEST_F(UndoRecordTest, FlippedBytesNeverCrashOrLie) {
  const auto change = SomeChange(10, -1);
  ASSERT_TRUE(UndoRecord::Create(path_, "image", change->overlay));
  const std::string good = dir_.Get("image.imgfsck-undo");
  const ByteVector new_bytes = BytesOf(change->overlay);
  std::mt19937_64 random(1);
  int opened = 0;
  for (int round = 0; round < 150; ++round) {
    std::string bad = good;
    for (uint64_t n = random() % 8 + 1; n > 0; --n) {
      bad[random() % (round % 2 == 0 ? 4096 : bad.size())] = static_cast<char>(random());
    }
    if (round % 10 == 0) bad.resize(random() % bad.size());
    dir_.Put("image.imgfsck-undo", bad);
    auto record = UndoRecord::Open(path_);
    if (!record) continue;  // else the flip was in bytes that mean nothing
    ++opened;
    MemoryStore image(change->base.bytes());
    ASSERT_TRUE((*record)->WriteNew(image));
    ASSERT_EQ(image.bytes(), new_bytes);
  }
  EXPECT_LT(opened, 140);
}

TEST_F(UndoRecordTest, AJournalThatNamesAnotherFileIsRefused) {
  Change change(ByteVector(100, 1));
  ASSERT_TRUE(change.overlay.WriteAt(0, AsBytes("x")));
  ASSERT_TRUE(UndoRecord::Create(path_, "image", change.overlay));
  const std::string victim = dir_.Put("victim", "precious");
  dir_.Put("image.imgfsck-undo-journal",
           std::string(512, '\1') + victim + "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7");
  auto record = UndoRecord::Open(path_);
  ASSERT_FALSE(record);
  EXPECT_EQ(record.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(dir_.Get("victim"), "precious");
}

TEST(JournalPointer, IsWrittenFoundAndRemoved) {
  TempDir dir;
  const std::string image = dir.Put("image", "x");
  const std::string undo = dir.Put("odd\nname", "x");
  auto none = ReadJournalPointer(image);
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
  ASSERT_TRUE(WriteJournalPointer(image, undo));
  EXPECT_EQ(dir.Entries(), 3u);
  auto found = ReadJournalPointer(image);
  ASSERT_TRUE(found);
  EXPECT_EQ(*found, undo);
  auto again = WriteJournalPointer(image, "/other");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
  EXPECT_EQ(**ReadJournalPointer(image), undo);
  ASSERT_EQ(symlink(image.c_str(), dir.File("link").c_str()), 0);
  EXPECT_EQ(**ReadJournalPointer(dir.File("link")), undo);
  ASSERT_TRUE(RemoveJournalPointer(image));
  EXPECT_TRUE(RemoveJournalPointer(image));  // nothing left to do
  EXPECT_FALSE(ReadJournalPointer(image)->has_value());
}

TEST(JournalPointer, FollowsARecordThatMovedWithItsImage) {
  TempDir dir;
  const std::string image = dir.Put("image", "x");
  ASSERT_TRUE(WriteJournalPointer(image, "/nonexistent/mount/image.imgfsck-undo"));
  EXPECT_EQ(**ReadJournalPointer(image), "/nonexistent/mount/image.imgfsck-undo");
  const std::string beside = dir.Put("image.imgfsck-undo", "x");
  EXPECT_EQ(std::filesystem::canonical(**ReadJournalPointer(image)),
            std::filesystem::canonical(beside));
}

TEST(JournalPointer, GarbageIsAClearError) {
  TempDir dir;
  const std::string image = dir.Put("image", "x");
  ASSERT_TRUE(WriteJournalPointer(image, "/undo"));
  const std::string good = dir.Get("image.imgfsck-journal");
  std::vector<std::string> bad = {"",
                                  "x",
                                  good + "\n",
                                  good.substr(0, good.size() - 1),
                                  std::string(200000, 'x'),
                                  "imgfsck-journal 1\npath 99999999999999999999\n/\n",
                                  "imgfsck-journal 1\npath 18446744073709551615\n/\n"};
  for (size_t i = 0; i < good.size(); ++i) {
    bad.push_back(good);
    bad.back()[i] = static_cast<char>(bad.back()[i] ^ 1);
  }
  for (const std::string& content : bad) {
    dir.Put("image.imgfsck-journal", content);
    auto found = ReadJournalPointer(image);
    ASSERT_FALSE(found) << content;
    EXPECT_EQ(found.error().code, ErrorCode::kInvalid);
  }
  dir.Put("image.imgfsck-journal", good);
  EXPECT_TRUE(ReadJournalPointer(image));
}

TEST(JournalPointer, ADirectoryThatCannotBeWrittenIsAnError) {
  EXPECT_FALSE(WriteJournalPointer("/proc/self/image", "/tmp/undo"));
}

TEST(FreeUndoPath, CountsUp) {
  TempDir dir;
  const std::string image = dir.File("image");
  EXPECT_EQ(FreeUndoPath(image), image + ".imgfsck-undo");
  dir.Put("image.imgfsck-undo", "");
  EXPECT_EQ(FreeUndoPath(image), image + ".imgfsck-undo.2");
  dir.Put("image.imgfsck-undo.2", "");
  EXPECT_EQ(FreeUndoPath(image), image + ".imgfsck-undo.3");
}

}  // namespace
}  // namespace imgfsck
