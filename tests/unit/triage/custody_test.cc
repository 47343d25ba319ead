// SPDX-License-Identifier: Apache-2.0
#include "triage/custody.h"

#include <gtest/gtest.h>

#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

class Custody : public ::testing::Test {
 protected:
  Custody() : path_(dir_.File("log")) {}
  void AddRun(bool end = true) {
    auto log = CustodyLog::Open(path_);
    ASSERT_TRUE(log) << log.error().message;
    ASSERT_TRUE((*log)->Start({"--hash", "a\nb\x1b\xff"}));
    ASSERT_TRUE((*log)->Record("examined", [](JsonWriter& json) { json.Member("path", "x\ny"); }));
    ASSERT_TRUE(!end || (*log)->End(4).has_value());
  }
  CustodyState State() {
    auto state = VerifyCustodyLog(path_);
    EXPECT_TRUE(state);
    return *state;
  }
  TempDir dir_;
  std::string path_;
};

TEST_F(Custody, RunsFollowOneAnother) {
  AddRun();
  AddRun();
  const CustodyState state = State();
  EXPECT_EQ(state.records, 6u);
  EXPECT_EQ(state.runs, 2u);
  EXPECT_EQ(state.unfinished, 0u);
  EXPECT_EQ(state.broken_record, 0u);
  EXPECT_EQ(state.last_hash.size(), 64u);
}

TEST_F(Custody, ARunWithoutAnEndIsSeen) {
  AddRun(false);
  EXPECT_EQ(State().unfinished, 1u);
  AddRun();
  EXPECT_EQ(State().unfinished, 1u);
  EXPECT_EQ(State().runs, 2u);
}

TEST_F(Custody, EveryChangedByteIsSeen) {
  AddRun();
  const std::string good = dir_.Get("log");
  const size_t last = good.rfind('\n', good.size() - 2) + 1;
  for (size_t i = 0; i < last; ++i) {  // of the last record, only later ones could tell
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    dir_.Put("log", bad);
    EXPECT_NE(State().broken_record, 0u) << i;
  }
}

TEST_F(Custody, RemovedAddedSwappedAndCutRecordsAreSeen) {
  AddRun();
  std::vector<std::string> lines;
  std::istringstream text(dir_.Get("log"));
  for (std::string line; std::getline(text, line);) lines.push_back(line + "\n");
  ASSERT_EQ(lines.size(), 3u);
  dir_.Put("log", lines[1] + lines[2]);
  EXPECT_EQ(State().broken_record, 1u);
  dir_.Put("log", lines[0] + lines[2]);
  EXPECT_EQ(State().broken_record, 2u);
  dir_.Put("log", lines[0] + lines[2] + lines[1]);
  EXPECT_EQ(State().broken_record, 2u);
  dir_.Put("log", lines[0] + lines[0] + lines[1]);
  EXPECT_EQ(State().broken_record, 2u);
  dir_.Put("log", lines[0] + lines[1].substr(0, 20));
  EXPECT_EQ(State().broken_record, 2u);
  EXPECT_EQ(State().trouble, "it is cut off");
  dir_.Put("log", lines[0] + lines[1]);
  EXPECT_EQ(State().broken_record, 0u);
  EXPECT_EQ(State().unfinished, 1u);
  dir_.Put("log", "no log\n");
  EXPECT_EQ(State().broken_record, 1u);
}

TEST_F(Custody, ABrokenLogIsNotContinuedAndNotTouched) {
  AddRun();
  std::string bad = dir_.Get("log");
  bad.front() = 'x';
  dir_.Put("log", bad);
  auto log = CustodyLog::Open(path_);
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().code, ErrorCode::kConflict);
  EXPECT_EQ(dir_.Get("log"), bad);
}

TEST_F(Custody, TwoRunsDoNotWriteAtOnce) {
  auto first = CustodyLog::Open(path_);
  ASSERT_TRUE(first);
  auto second = CustodyLog::Open(path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kLocked);
}

}  // namespace
}  // namespace imgfsck
