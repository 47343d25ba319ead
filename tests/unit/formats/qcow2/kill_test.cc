// SPDX-License-Identifier: Apache-2.0
// Every operation is killed at every write it does, to the image or to its data file, with unsynced
// writes kept, lost or torn. What a new process finds must have no damage beyond leaks and the
// marks of an unclean end, and each sector must read as before the operation or as after it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/unit/formats/qcow2/image_fixture.h"
#include "tests/unit/formats/qcow2/rig.h"

namespace imgfsck::qcow2 {
namespace {

using Unsynced = FaultPlan::Unsynced;

class KillTest : public testing::TestWithParam<Trial> {
 protected:
  void SetUp() override {
    sound_ = Seasoned(layout(), *GetParam().operation);
    ASSERT_EQ(Damage(sound_), "");
    before_ = Contents(layout(), sound_);
    Rig rig(layout(), sound_);
    ASSERT_OK(rig.Open());
    ASSERT_OK(GetParam().operation->run(rig.driver()));
    ASSERT_OK(rig.driver().Close());
    rig.Close();
    Verdict verdict = CheckBytes(rig.image());
    ASSERT_TRUE(verdict.sound()) << verdict.text;
    after_ = Contents(layout(), rig.Survivors());
  }

  // One run that stops at that write; false when it does not come so far.
  bool Kill(FaultPlan image, FaultPlan data) {
    Rig rig(layout(), sound_, image, data);
    EXPECT_TRUE(rig.Open());
    Status status = GetParam().operation->run(rig.driver());
    if (status) status = rig.driver().Close();
    rig.Close();
    EXPECT_EQ(status.has_value(), !rig.Fired());
    if (!rig.Fired()) return false;
    const Files left = rig.Survivors();
    EXPECT_EQ(Damage(left), "");
    EXPECT_EQ(Mixed(Contents(layout(), left), before_, after_), "");
    // It can be written again, and is sound but for leaks.
    Rig again(layout(), left);
    EXPECT_TRUE(again.Open());
    EXPECT_TRUE(again.driver().Write(0, Pattern(30, 3000)));
    EXPECT_TRUE(again.driver().Close());
    EXPECT_EQ(Damage(again.Survivors()), "");
    return true;
  }
  const Layout& layout() const { return *GetParam().layout; }

  Files sound_;
  ByteVector before_, after_;
};

TEST_P(KillTest, LeavesNothingButLeaks) {
  static constexpr const char* kNames[] = {"keep", "lose", "scramble"};
  for (size_t kind : GetParam().Kinds(3, 1)) {
    const auto unsynced = static_cast<Unsynced>(kind);
    for (const bool data : {false, true}) {
      if (data && !layout().data_file()) break;
      for (uint64_t at = 1; !HasFailure(); ++at) {
        SCOPED_TRACE(fmt::format("{}: killed at write {}{}", kNames[kind], at,
                                 data ? " to the data file" : ""));
        FaultPlan stop{FaultPlan::Kind::kCrash, at, unsynced, at};
        FaultPlan other{FaultPlan::Kind::kNone, 0, unsynced, at};
        if (!(data ? Kill(other, stop) : Kill(stop, other))) break;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Qcow2, KillTest, testing::ValuesIn(AllTrials()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace imgfsck::qcow2
