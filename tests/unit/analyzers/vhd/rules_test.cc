// SPDX-License-Identifier: Apache-2.0
// Every rule of the sheet's catalogue: a sound image stays clean, and one that breaks the rule is
// told so, with the right severity.
#include <gtest/gtest.h>

#include "tests/unit/analyzers/vhd/cases.h"

namespace imgfsck::vhd {
namespace {

TEST(VhdCheck, SoundImagesAreClean) {
  for (auto make : {SoundFixed, SoundDynamic, SoundChild, SoundTap}) {
    MemoryStore store = make();
    CheckReport report = Check(store);
    EXPECT_EQ(Said(report), "");
  }
}

class VhdRule : public testing::TestWithParam<Case> {};

TEST_P(VhdRule, IsJudged) {
  const Case& c = GetParam();
  MemoryStore store = c.make();
  ASSERT_TRUE(c.name == "r54" || c.name == "r39_untested" ||
              Find(Check(store), c.problem) == nullptr);
  c.damage(store);
  ByteVector before = store.bytes();
  CheckReport report = Check(store);
  const Finding* finding = Find(report, c.problem);
  ASSERT_NE(finding, nullptr) << Said(report, Severity::kInfo);
  EXPECT_EQ(finding->severity_or_default(), c.severity) << Said(report);
  EXPECT_TRUE(store.bytes() == before);
}

INSTANTIATE_TEST_SUITE_P(Catalogue, VhdRule, testing::ValuesIn(AllCases()), NameOf);

}  // namespace
}  // namespace imgfsck::vhd
