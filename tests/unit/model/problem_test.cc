// SPDX-License-Identifier: Apache-2.0
// The problem registry: lookups, vocabularies, the shape of its rows. Uniqueness and spelling are
// proved at compile time in model/problem.cc.
#include "model/problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace imgfsck {
namespace {

uint16_t Id(Problem problem) { return static_cast<uint16_t>(problem); }

TEST(Problem, EveryRowIsFoundByItsIdAndItsCode) {
  ASSERT_FALSE(AllProblems().empty());
  for (const ProblemInfo& info : AllProblems()) {
    EXPECT_EQ(&InfoOf(info.problem), &info) << info.code;
    EXPECT_EQ(FindProblem(info.code), &info) << info.code;
  }
}

TEST(Problem, CodesAndIdsAreUnique) {
  std::set<std::string_view> codes;
  std::set<uint16_t> ids;
  for (const ProblemInfo& info : AllProblems()) {
    EXPECT_TRUE(codes.insert(info.code).second) << info.code;
    EXPECT_TRUE(ids.insert(Id(info.problem)).second) << info.code;
  }
}

TEST(Problem, UnknownCodesAreNotFound) {
  for (std::string_view code : {"", "qcow2", "qcow2-", "qcow2-hdr-magi", "qcow2-hdr-magic ",
                                "QCOW2-HDR-MAGIC", "q1-magic", "vhd-vhd-footer-missing"}) {
    EXPECT_EQ(FindProblem(code), nullptr) << code;
  }
}

TEST(ProblemDeathTest, AnIdWithoutARowIsOurBug) {
  EXPECT_DEATH(InfoOf(static_cast<Problem>(0)), "");
  EXPECT_DEATH(InfoOf(static_cast<Problem>(149)), "");
  EXPECT_DEATH(InfoOf(static_cast<Problem>(0xFFFF)), "");
}

// The catalogues are complete: ids run without a gap from the first to the last row of each.
TEST(Problem, CataloguesHaveNoGaps) {
  const struct {
    std::string_view prefix;
    int base, rows;
  } kCatalogues[] = {
      {"qcow2-", 0, 141}, {"vhd-", 1000, 82}, {"qcow-", 2000, 37}, {"cow-", 3000, 35}};
  std::map<uint16_t, std::string_view> code_of;
  for (const ProblemInfo& info : AllProblems()) code_of[Id(info.problem)] = info.code;
  for (const auto& catalogue : kCatalogues) {
    for (int row = 1; row <= catalogue.rows; ++row) {
      auto found = code_of.find(static_cast<uint16_t>(catalogue.base + row));
      ASSERT_NE(found, code_of.end()) << catalogue.prefix << row;
      EXPECT_TRUE(found->second.starts_with(catalogue.prefix)) << found->second;
    }
  }
}

// An id's thousands say which format its code names.
TEST(Problem, IdsLieInTheRangeOfTheirFormat) {
  for (const ProblemInfo& info : AllProblems()) {
    int thousand = Id(info.problem) / 1000;
    std::string_view expected = thousand == 0             ? "qcow2-"
                                : thousand == 1           ? "vhd-"
                                : thousand == 2           ? "qcow-"
                                : thousand == 3           ? "cow-"
                                : Id(info.problem) < 5010 ? "image-"
                                                          : "chain-";
    EXPECT_TRUE(info.code.starts_with(expected)) << info.code << ' ' << Id(info.problem);
  }
}

TEST(Problem, PermanentIdsAndCodes) {
  EXPECT_EQ(Id(Problem::kQcow2HdrMagic), 1);
  EXPECT_EQ(Id(Problem::kQcow2RefcountLeak), 81);
  EXPECT_EQ(Id(Problem::kQcow2HdrSizeCap), 141);
  EXPECT_EQ(Id(Problem::kQcow2L2EmptyWithLeaks), 150);
  EXPECT_EQ(Id(Problem::kVhdFooterChecksum), 1005);
  EXPECT_EQ(Id(Problem::kVhdParentBad), 1082);
  EXPECT_EQ(Id(Problem::kQcowL1PastEof), 2011);
  EXPECT_EQ(Id(Problem::kCowMagic), 3001);
  EXPECT_EQ(Id(Problem::kImageUnreadable), 5000);
  EXPECT_EQ(Id(Problem::kChainMissing), 5010);
  EXPECT_EQ(InfoOf(Problem::kVhdDynHeaderCookie).code, "vhd-dyn-header-cookie");
  EXPECT_EQ(InfoOf(Problem::kVhdBatNot4kAligned).code, "vhd-bat-not-4k-aligned");
}

// Decided otherwise than a first reading of the formats would have it.
TEST(Problem, DecidedSeverities) {
  auto severity = [](Problem problem) { return InfoOf(problem).severity; };
  for (Problem refused_by_qemu : {Problem::kQcow2L1Cap, Problem::kQcow2RtCap,
                                  Problem::kQcow2BitmapExtra, Problem::kQcow2HdrSizeCap}) {
    EXPECT_EQ(severity(refused_by_qemu), Severity::kCorruption) << InfoOf(refused_by_qemu).code;
  }
  EXPECT_EQ(severity(Problem::kQcow2L2Copied), Severity::kCorruption);
  EXPECT_EQ(severity(Problem::kQcow2BitmapAutoUnset), Severity::kLeak);
  EXPECT_EQ(severity(Problem::kQcow2L2EmptyWithLeaks), Severity::kCorruption);
  EXPECT_EQ(severity(Problem::kVhdBitmapEmptyBlock), Severity::kInfo);
  EXPECT_EQ(severity(Problem::kVhdBitmapClearSectorNonzero), Severity::kCorruption);
  EXPECT_EQ(severity(Problem::kQcowWaste), Severity::kInfo);
  EXPECT_EQ(severity(Problem::kCowDataRedundant), Severity::kInfo);
  for (Problem missing : {Problem::kQcow2BackingMissing, Problem::kVhdParentUnresolved,
                          Problem::kQcowBackingMissing, Problem::kCowBackingMissing}) {
    EXPECT_EQ(severity(missing), Severity::kWarning) << InfoOf(missing).code;
  }
  EXPECT_EQ(severity(Problem::kChainMissing), Severity::kCorruption);
}

TEST(Problem, DecidedRepairs) {
  auto repair = [](Problem problem) { return InfoOf(problem).repair; };
  for (Problem split : {Problem::kQcow2L1EntryDuplicate, Problem::kQcow2L2DataCrosslink,
                        Problem::kQcow2L2DataOnMetadata, Problem::kQcow2ComprOnStd,
                        Problem::kQcow2SnapL2Structure, Problem::kVhdBatEntryDuplicate,
                        Problem::kVhdBatEntryOverlap, Problem::kQcowL1EntryDuplicate,
                        Problem::kQcowDataCrosslink, Problem::kQcowDataOnMetadata}) {
    EXPECT_EQ(repair(split), RepairClass::kSafe) << InfoOf(split).code;
  }
  EXPECT_EQ(repair(Problem::kQcow2BitmapAutoUnset), RepairClass::kSafe);
  EXPECT_EQ(repair(Problem::kQcow2BitmapDirUnaligned), RepairClass::kSafe);
  EXPECT_EQ(repair(Problem::kQcow2SnapOrphanL1), RepairClass::kSafe);
  EXPECT_EQ(repair(Problem::kQcow2SnapUndercount), RepairClass::kSafe);
  EXPECT_EQ(repair(Problem::kQcow2L2EmptyWithLeaks), RepairClass::kAll);
  EXPECT_EQ(repair(Problem::kVhdBatEntryTailTruncated), RepairClass::kAll);
  EXPECT_EQ(repair(Problem::kQcow2L2TailShort), RepairClass::kNone);
}

TEST(Problem, Vocabularies) {
  EXPECT_EQ(ToText(Severity::kInfo), "info");
  EXPECT_EQ(ToText(Severity::kWarning), "warning");
  EXPECT_EQ(ToText(Severity::kLeak), "leak");
  EXPECT_EQ(ToText(Severity::kCorruption), "corruption");
  EXPECT_EQ(ToText(RepairClass::kNone), "none");
  EXPECT_EQ(ToText(RepairClass::kSafe), "safe");
  EXPECT_EQ(ToText(RepairClass::kAll), "all");
  EXPECT_EQ(ToText(Effect::kNone), "none");
  EXPECT_EQ(ToText(Effect::kWrong), "wrong");
  EXPECT_EQ(ToText(Effect::kStale), "stale");
  EXPECT_EQ(ToText(Effect::kZero), "zero");
  EXPECT_EQ(ToText(Effect::kUnreadable), "unreadable");
}

// The sentences end up on terminals, in JSON and in Markdown tables.
TEST(Problem, SentencesArePlainText) {
  for (const ProblemInfo& info : AllProblems()) {
    for (std::string_view text : {info.what, info.mend, info.cost}) {
      EXPECT_TRUE(std::all_of(
          text.begin(), text.end(),
          [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '|' && c != '\\'; }))
          << info.code << ": " << text;
      EXPECT_EQ(text.find("  "), std::string_view::npos) << info.code << ": " << text;
      EXPECT_LE(text.size(), 160u) << info.code << ": " << text;
      EXPECT_FALSE(text.starts_with(' ') || text.ends_with(' ')) << info.code << ": " << text;
    }
  }
}

}  // namespace
}  // namespace imgfsck
