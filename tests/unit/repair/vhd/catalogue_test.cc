// SPDX-License-Identifier: Apache-2.0
// Every damage of the catalogue: what the registry calls repairable is gone after the repair, and
// nothing readable was lost on the way.
#include <gtest/gtest.h>

#include "tests/unit/analyzers/vhd/cases.h"
#include "tests/unit/repair/vhd/repair_helpers.h"

namespace imgfsck::vhd {
namespace {

class VhdRepair : public testing::TestWithParam<Case> {};

// The content of the smaller disk is that of the larger one's beginning.
bool SameContent(const ByteVector& a, const ByteVector& b) {
  size_t size = std::min(a.size(), b.size());
  return std::equal(a.begin(), a.begin() + static_cast<ptrdiff_t>(size), b.begin());
}

TEST_P(VhdRepair, SafeChangesNothingReadable) {
  const Case& c = GetParam();
  MemoryStore store = c.make();
  c.damage(store);
  auto before = QemuContent(store.bytes());
  Plan plan = Repaired(store, RepairMode::kSafe);
  const Finding* finding = Find(plan.before, c.problem);
  ASSERT_NE(finding, nullptr);
  auto after = QemuContent(BytesOf(*plan.overlay));
  if (before) {
    ASSERT_TRUE(after) << Story(plan);
    EXPECT_GE(after->size(), before->size());
    EXPECT_TRUE(SameContent(*before, *after)) << Story(plan);
  }
  EXPECT_TRUE(plan.lost.empty());
  bool mended = finding->repair_or_default() == RepairClass::kSafe &&
                finding->severity_or_default() >= Severity::kWarning;
  EXPECT_FALSE(mended && Find(plan.Final(), c.problem) != nullptr) << Story(plan);
  Plan again = Repaired(*plan.overlay, RepairMode::kSafe);
  EXPECT_TRUE(again.Empty()) << Story(again);
}

TEST_P(VhdRepair, AllMendsWhatCanBeMended) {
  const Case& c = GetParam();
  MemoryStore store = c.make();
  auto pristine = QemuContent(store.bytes());
  ASSERT_TRUE(pristine);
  c.damage(store);
  Plan plan = Repaired(store, RepairMode::kAll);
  const Finding* finding = Find(plan.before, c.problem);
  ASSERT_NE(finding, nullptr);
  bool mended = finding->repair_or_default() != RepairClass::kNone &&
                (finding->severity_or_default() >= Severity::kLeak ||
                 (finding->severity_or_default() == Severity::kWarning &&
                  finding->repair_or_default() == RepairClass::kSafe));
  EXPECT_FALSE(mended && Find(plan.Final(), c.problem) != nullptr) << Story(plan);
  for (const Finding& f : plan.Final().findings.kept()) {
    if (f.severity_or_default() != Severity::kCorruption) continue;
    EXPECT_EQ(f.repair_or_default(), RepairClass::kNone) << Story(plan);
  }
  Plan again = Repaired(*plan.overlay, RepairMode::kAll);
  EXPECT_TRUE(again.Empty()) << Story(again);
}

INSTANTIATE_TEST_SUITE_P(Catalogue, VhdRepair, testing::ValuesIn(AllCases()), NameOf);

}  // namespace
}  // namespace imgfsck::vhd
