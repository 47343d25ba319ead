// SPDX-License-Identifier: Apache-2.0
// Every operation meets an error (of a read, a write, a sync, for want of space) at every place
// where there can be one. It may fail then, but neither the image nor the open driver may come to
// harm: the next operation works or fails cleanly, and what is left on disk has no damage beyond
// leaks.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/formats/qcow2/image_fixture.h"
#include "tests/unit/formats/qcow2/rig.h"

namespace imgfsck::qcow2 {
namespace {

using Kind = FaultPlan::Kind;

struct Trouble {
  Kind kind;
  const char* name;
};
constexpr Trouble kTroubles[] = {{Kind::kRead, "read"},
                                 {Kind::kWrite, "write"},
                                 {Kind::kTornWrite, "torn write"},
                                 {Kind::kNoSpace, "no space"},
                                 {Kind::kSync, "sync"}};

class FaultTest : public testing::TestWithParam<Trial> {
 protected:
  void SetUp() override {
    sound_ = Seasoned(layout(), *GetParam().operation);
    before_ = Contents(layout(), sound_);
    Rig rig(layout(), sound_);
    ASSERT_OK(rig.Open());
    ASSERT_OK(GetParam().operation->run(rig.driver()));
    ASSERT_OK(rig.driver().Close());
    after_ = Contents(layout(), rig.Survivors());
  }

  // One run with an error there; false when it does not come so far.
  bool Fail(Kind kind, FaultPlan image, FaultPlan data) {
    Rig rig(layout(), sound_, image, data);
    if (!rig.Open()) return rig.Fired();
    const Status status = GetParam().operation->run(rig.driver());
    const bool in_time = rig.Fired();
    EXPECT_TRUE(status || in_time);
    // What the driver reads now is what will be found.
    ByteVector seen(std::min(rig.driver().VirtualSize(), kLookedAt));
    const bool readable = rig.driver().Read(0, seen).has_value();
    if (readable) {
      EXPECT_EQ(Mixed(seen, before_, after_), "");
    }
    const bool closed = rig.driver().Close().has_value();
    EXPECT_TRUE(closed || rig.Fired());
    rig.Close();
    const Files left = rig.Survivors();
    EXPECT_EQ(Damage(left), "");
    const ByteVector found = Contents(layout(), left);
    EXPECT_EQ(Mixed(found, before_, after_), "");
    if (readable && closed && kind != Kind::kRead) {
      EXPECT_TRUE(found == seen) << "it read otherwise before it was closed";
    }
    return rig.Fired();
  }
  const Layout& layout() const { return *GetParam().layout; }

  Files sound_;
  ByteVector before_, after_;
};

TEST_P(FaultTest, DoesNoHarm) {
  for (size_t number : GetParam().Kinds(std::size(kTroubles), 1)) {
    const Trouble& trouble = kTroubles[number];
    for (const bool data : {false, true}) {
      if (data && !layout().data_file()) break;
      for (uint64_t at = 1; !HasFailure(); ++at) {
        SCOPED_TRACE(fmt::format("{} {} fails{}", trouble.name, at, data ? ", data file" : ""));
        FaultPlan error{trouble.kind, at}, none;
        if (!(data ? Fail(trouble.kind, none, error) : Fail(trouble.kind, error, none))) break;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Qcow2, FaultTest, testing::ValuesIn(AllTrials()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace imgfsck::qcow2
