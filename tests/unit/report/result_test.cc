// SPDX-License-Identifier: Apache-2.0
// Exit statuses, what counts as mended, and the list of findings after a repair.
#include "report/result.h"

#include "tests/unit/report/report_fixture.h"

namespace imgfsck {
namespace {

class ResultTest : public ReportTest {
 protected:
  void Repair(bool dry_run = false, uint64_t patches = 3) {
    result_.after = CheckOf(after_);
    result_.repair = Summary("safe", dry_run, patches);
  }
  int Exit(Severity fail_on = Severity::kLeak) { return ExitCodeOf(result_, fail_on); }
  int QemuExit() { return ExitCodeOf(result_, Severity::kLeak, ExitStyle::kQemu); }
};

TEST_F(ResultTest, ExitCodeOfACheck) {
  EXPECT_EQ(Exit(Severity::kWarning), 0);
  before_.Add(Make(info_, 0));
  EXPECT_EQ(Exit(Severity::kWarning), 0);
  before_.Add(Make(warning_, 0));
  EXPECT_EQ(Exit(Severity::kWarning), 4);
  EXPECT_EQ(Exit(Severity::kLeak), 0);
  before_.Add(Make(leak_, 0));
  EXPECT_EQ(Exit(Severity::kLeak), 4);
  EXPECT_EQ(Exit(Severity::kCorruption), 0);
  before_.Add(Make(corruption_, 0));
  EXPECT_EQ(Exit(Severity::kCorruption), 4);
  result_.error = Error{ErrorCode::kIo, "gone", {}};
  EXPECT_EQ(Exit(), 8);
  result_.error.reset();
  result_.before.reset();
  EXPECT_EQ(Exit(), 8);
}

TEST_F(ResultTest, ExitCodeOfARepair) {
  before_.Add(Make(corruption_, 0));
  Repair();
  EXPECT_EQ(Exit(), 1);
  after_.Add(Make(warning_, 0));  // below fail-on: does not turn the 1 into a 4
  EXPECT_EQ(Exit(), 1);
  after_.Add(Make(leak_, 0));
  EXPECT_EQ(Exit(), 4);
}

TEST_F(ResultTest, RepairedWarningsAloneAreZero) {
  before_.Add(Make(warning_, 0));
  Repair();
  EXPECT_EQ(Exit(), 0);
}

TEST_F(ResultTest, DryRunLeavesEverything) {
  before_.Add(Make(warning_, 0));
  Repair(true);
  EXPECT_EQ(Exit(), 4);  // there is something to do
  EXPECT_EQ(FixedUnits(result_, Severity::kWarning), 0u);
  EXPECT_FALSE(FindingsToList(result_).at(0).fixed);
  result_.repair->patches = 0;
  EXPECT_EQ(Exit(), 0);
  before_.Add(Make(corruption_, 0));
  EXPECT_EQ(Exit(), 4);
}

TEST_F(ResultTest, QemuStyle) {
  EXPECT_EQ(QemuExit(), 0);
  before_.Add(Make(leak_, 0));
  EXPECT_EQ(QemuExit(), 3);
  before_.Add(Make(corruption_, 0));
  EXPECT_EQ(QemuExit(), 2);
  Repair();
  EXPECT_EQ(QemuExit(), 0);
  result_.after->check_errors = 1;
  EXPECT_EQ(QemuExit(), 1);
  result_.error = Error{ErrorCode::kUnsupported, "raw has no check", {}};
  EXPECT_EQ(QemuExit(), 63);
  result_.error->code = ErrorCode::kLocked;
  EXPECT_EQ(QemuExit(), 1);
}

TEST_F(ResultTest, ListsWhatIsLeftThenWhatWasMended) {
  before_.Add(Make(leak_, 0x100000, 4));
  before_.Add(Make(leak_, 0x900000));
  before_.Add(Make(corruption_, 0x50000));
  Finding placeless;
  placeless.problem = lossy_;
  placeless.structure = "header";
  before_.Add(placeless);
  after_.Add(Make(leak_, 0x120000, 1));  // one cluster of the first leak is left
  after_.Add(placeless);
  Repair();
  std::vector<Finding> list = FindingsToList(result_);
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0].problem, lossy_);
  EXPECT_FALSE(list[0].fixed);
  EXPECT_EQ(list[1].host, MakeHostRange(0x120000, 0x10000));
  EXPECT_FALSE(list[1].fixed);
  EXPECT_EQ(list[2].problem, corruption_);
  EXPECT_TRUE(list[2].fixed);
  EXPECT_EQ(list[3].host, MakeHostRange(0x900000, 0x10000));
  EXPECT_TRUE(list[3].fixed);
  EXPECT_EQ(FixedUnits(result_, Severity::kLeak), 4u);
  EXPECT_EQ(FixedUnits(result_, Severity::kCorruption), 1u);
}

TEST_F(ResultTest, GuestPlaceMatchesInItsLayerOnly) {
  auto guest = [&](const char* layer, uint64_t offset) {
    Finding finding;
    finding.problem = lossy_;
    finding.layer = layer;
    finding.guest = MakeGuestRange(offset, 0x1000);
    return finding;
  };
  before_.Add(guest("active", 0x4000));
  before_.Add(guest("2", 0x4000));
  before_.Add(guest("active", 0x6000));
  after_.Add(guest("active", 0x4800));
  Repair();
  std::vector<Finding> list = FindingsToList(result_);
  ASSERT_EQ(list.size(), 3u);
  EXPECT_TRUE(list[1].fixed);
  EXPECT_EQ(list[1].layer, "2");
  EXPECT_TRUE(list[2].fixed);
  EXPECT_EQ(list[2].guest, MakeGuestRange(0x6000, 0x1000));
}

TEST_F(ResultTest, NothingIsCalledMendedThatMayBeAmongTheUnkept) {
  Findings after(1);
  before_.Add(Make(leak_, 0x100000));
  before_.Add(Make(leak_, 0x300000));
  after.Add(Make(leak_, 0x300000));
  after.Add(Make(leak_, 0x100000));  // counted, not kept
  Repair();
  result_.after = CheckOf(after);
  EXPECT_EQ(FindingsToList(result_).size(), 1u);
  EXPECT_EQ(FixedUnits(result_, Severity::kLeak), 0u);
}

}  // namespace
}  // namespace imgfsck
