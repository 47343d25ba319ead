// SPDX-License-Identifier: Apache-2.0
// Merging, counting and sorting of findings. Problems are picked from the registry by severity, so
// that no test depends on a problem's wording.
#include "model/finding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

namespace {
size_t allocations = 0;
}  // namespace

// Counts every allocation of this program; Findings promises none for what it does not keep.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  std::abort();
}
// Every form that the library pairs with the operator delete below.
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t& /*tag*/) noexcept {
  ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace imgfsck {
namespace {

Problem ProblemOf(Severity severity, size_t nth = 0) {
  for (const ProblemInfo& info : AllProblems()) {
    if (info.severity == severity && nth-- == 0) return info.problem;
  }
  ADD_FAILURE() << "the registry has too few problems";
  return AllProblems().front().problem;
}

Finding At(Problem problem, uint64_t host, uint64_t length = 10) {
  Finding finding;
  finding.problem = problem;
  finding.structure = "l2[3]";
  finding.host = MakeHostRange(host, length);
  return finding;
}

class FindingsTest : public testing::Test {
 protected:
  Problem leak_ = ProblemOf(Severity::kLeak);
  Problem corruption_ = ProblemOf(Severity::kCorruption);
  Findings findings_;
};

TEST_F(FindingsTest, AdjoiningHostRangesBecomeOne) {
  findings_.Add(At(leak_, 100));
  findings_.Add(At(leak_, 110));
  findings_.Add(At(leak_, 120, 30));
  ASSERT_EQ(findings_.kept().size(), 1u);
  EXPECT_EQ(findings_.kept()[0].host, MakeHostRange(100, 50));
  EXPECT_EQ(findings_.kept()[0].count, 3u);
  EXPECT_EQ(findings_.totals().at(leak_).findings, 1u);
  EXPECT_EQ(findings_.Units(leak_), 3u);
}

TEST_F(FindingsTest, GapOverlapAndWayBackStaySeparate) {
  for (uint64_t host : {100u, 111u, 120u, 110u, 100u}) findings_.Add(At(leak_, host));
  EXPECT_EQ(findings_.kept().size(), 5u);
}

TEST_F(FindingsTest, AnotherProblemBetweenDoesNotPart) {
  findings_.Add(At(leak_, 100));
  findings_.Add(At(corruption_, 110));
  findings_.Add(At(leak_, 110));
  EXPECT_EQ(findings_.kept().size(), 2u);
  EXPECT_EQ(findings_.Units(leak_), 2u);
}

TEST_F(FindingsTest, GuestRangesMustAdjoinToo) {
  Finding first = At(leak_, 100), second = At(leak_, 110), third = At(leak_, 120);
  first.guest = MakeGuestRange(1000, 10);
  second.guest = MakeGuestRange(1010, 10);
  third.guest = MakeGuestRange(2000, 10);
  findings_.Add(first);
  findings_.Add(second);
  findings_.Add(third);
  ASSERT_EQ(findings_.kept().size(), 2u);
  EXPECT_EQ(findings_.kept()[0].guest, MakeGuestRange(1000, 20));
  findings_.Add(At(leak_, 130));  // no guest range after one with: another thing
  EXPECT_EQ(findings_.kept().size(), 3u);
}

TEST_F(FindingsTest, NoRangesAtAllCountsUp) {
  Finding finding;
  finding.problem = corruption_;
  finding.structure = "header";
  findings_.Add(finding);
  findings_.Add(finding);
  ASSERT_EQ(findings_.kept().size(), 1u);
  EXPECT_EQ(findings_.kept()[0].count, 2u);
}

TEST_F(FindingsTest, EveryOtherDifferenceStaysSeparate) {
  std::vector<void (*)(Finding&)> changes = {
      [](Finding& f) { f.structure = "l2[4]"; },
      [](Finding& f) { f.layer = "1"; },
      [](Finding& f) { f.detail = "stored 2"; },
      [](Finding& f) { f.evidence = "the copy says so"; },
      [](Finding& f) { f.confidence = 0.5; },
      [](Finding& f) { f.severity = Severity::kInfo; },
      [](Finding& f) { f.repair = RepairClass::kNone; },
      [](Finding& f) { f.effect = Effect::kStale; },
      [](Finding& f) { f.fixed = true; },
      [](Finding& f) {
        f.also.push_back({"1", MakeGuestRange(0, 10), "l2[9]"});
      },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    Findings findings;
    Finding changed = At(leak_, 110);
    changes[i](changed);
    findings.Add(At(leak_, 100));
    findings.Add(changed);
    EXPECT_EQ(findings.kept().size(), 2u) << i;
  }
}

TEST_F(FindingsTest, ClaimantsContinueElementByElement) {
  auto with = [&](uint64_t host, uint64_t guest, uint64_t other_guest) {
    Finding finding = At(corruption_, host);
    finding.also = {{"1", MakeGuestRange(guest, 10), "l2"},
                    {"", std::nullopt, "l1"},
                    {"2", MakeGuestRange(other_guest, 10), "l2"}};
    return finding;
  };
  findings_.Add(with(100, 500, 900));
  findings_.Add(with(110, 510, 910));
  ASSERT_EQ(findings_.kept().size(), 1u);
  EXPECT_EQ(findings_.kept()[0].also[0].guest, MakeGuestRange(500, 20));
  EXPECT_FALSE(findings_.kept()[0].also[1].guest);
  EXPECT_EQ(findings_.kept()[0].also[2].guest, MakeGuestRange(900, 20));
  findings_.Add(with(120, 520, 930));  // the last claimant jumps
  EXPECT_EQ(findings_.kept().size(), 2u);
}

TEST_F(FindingsTest, RangesAtTheEndOfNumbersDoNotWrap) {
  findings_.Add(At(leak_, UINT64_MAX - 9, 10));
  findings_.Add(At(leak_, 0));
  findings_.Add(At(corruption_, UINT64_MAX - 20, 10));
  findings_.Add(At(corruption_, UINT64_MAX - 10, 100));
  EXPECT_EQ(findings_.kept().size(), 4u);
}

TEST_F(FindingsTest, TotalsCountWhatIsNotKept) {
  Findings findings(3);
  for (uint64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(findings.WouldKeep(leak_), i < 3);
    findings.Add(At(leak_, i * 100));
  }
  findings.Add(At(leak_, 910));  // continues the last, which was not kept
  findings.AddBare(leak_, 7);
  findings.Add(At(corruption_, 0));
  EXPECT_EQ(findings.kept().size(), 4u);
  const auto& total = findings.totals().at(leak_);
  EXPECT_EQ(total.findings, 11u);
  EXPECT_EQ(total.units, 18u);
  EXPECT_EQ(total.dropped, 8u);
  EXPECT_EQ(findings.Units(Severity::kLeak), 18u);
  EXPECT_EQ(findings.FindingsOf(Severity::kLeak), 11u);
  EXPECT_EQ(findings.Units(Severity::kCorruption), 1u);
}

TEST_F(FindingsTest, WhatIsNotKeptAllocatesNothing) {
  constexpr uint64_t kMany = 1000000;
  Findings findings(10);
  for (uint64_t i = 0; i < 20; ++i) findings.Add(At(leak_, i * 100));
  size_t before = allocations;
  for (uint64_t i = 20; i < kMany; ++i) findings.Add(At(leak_, i * 100));
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(findings.Units(leak_), kMany);
  EXPECT_EQ(findings.kept().size(), 10u);
}

TEST_F(FindingsTest, SeverityOfTheFindingCounts) {
  Finding gentle = At(corruption_, 0);
  gentle.severity = Severity::kWarning;
  gentle.count = 5;
  findings_.Add(gentle);
  findings_.Add(At(corruption_, 500));
  EXPECT_EQ(findings_.Units(Severity::kWarning), 5u);
  EXPECT_EQ(findings_.Units(Severity::kCorruption), 1u);
  EXPECT_EQ(findings_.Units(corruption_), 6u);
  EXPECT_EQ(findings_.Units(corruption_, Severity::kWarning), 5u);
  EXPECT_EQ(findings_.Units(leak_, Severity::kWarning), 0u);
}

// However the stream is cut over collections, kept findings and totals are as from one.
TEST_F(FindingsTest, MergedPiecesEqualOneCollection) {
  std::vector<Finding> stream;
  for (uint64_t i = 0; i < 60; ++i) {
    Finding finding = At(i % 7 == 3 ? corruption_ : leak_, i * 10 + (i % 5 == 4 ? 1 : 0));
    if (i % 11 == 5) finding.severity = Severity::kInfo;
    stream.push_back(finding);
  }
  for (size_t keep : {1u, 3u, 100u}) {
    Findings whole(keep);
    for (const Finding& finding : stream) whole.Add(finding);
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
      Findings first(keep), second(keep);
      for (size_t i = 0; i < stream.size(); ++i) (i < cut ? first : second).Add(stream[i]);
      first.Merge(std::move(second));
      auto numbers = [](const Findings& f) {
        std::vector<uint64_t> list;
        for (const auto& [problem, t] : f.totals()) {
          list.insert(list.end(), {static_cast<uint64_t>(problem), t.findings, t.units, t.dropped});
        }
        for (Severity severity : {Severity::kInfo, Severity::kLeak, Severity::kCorruption}) {
          list.insert(list.end(), {f.Units(severity), f.FindingsOf(severity)});
        }
        // By problem: the order between problems is that of the pieces.
        for (Problem problem : {ProblemOf(Severity::kLeak), ProblemOf(Severity::kCorruption)}) {
          for (const Finding& finding : f.kept()) {
            if (finding.problem != problem) continue;
            list.insert(list.end(),
                        {finding.host->offset.value, finding.host->length, finding.count});
          }
        }
        return list;
      };
      EXPECT_EQ(numbers(first), numbers(whole)) << "keep " << keep << " cut " << cut;
    }
  }
}

TEST_F(FindingsTest, SortsBySeverityThenPlaceAndKeepsTies) {
  Finding nowhere = At(leak_, 0);
  nowhere.host.reset();
  Finding tie = At(leak_, 300);
  tie.detail = "second";
  findings_.Add(At(leak_, 300));
  findings_.Add(tie);
  findings_.Add(At(leak_, 200));
  findings_.Add(nowhere);
  findings_.Add(At(corruption_, 900));
  findings_.Sort();
  const auto& kept = findings_.kept();
  ASSERT_EQ(kept.size(), 5u);
  EXPECT_EQ(kept[0].problem, corruption_);
  EXPECT_FALSE(kept[1].host);
  EXPECT_EQ(kept[2].host, MakeHostRange(200, 10));
  EXPECT_EQ(kept[3].detail, "");
  EXPECT_EQ(kept[4].detail, "second");
  findings_.Add(At(corruption_, 910));  // what was last before is no longer the last
  EXPECT_EQ(findings_.kept().size(), 6u);
}

TEST_F(FindingsTest, MessageHasTheDetail) {
  Finding finding = At(leak_, 0);
  std::string what(InfoOf(leak_).what);
  EXPECT_EQ(finding.Message(), what);
  finding.detail = "stored 2, referenced 1";
  EXPECT_EQ(finding.Message(), what + ": stored 2, referenced 1");
}

}  // namespace
}  // namespace imgfsck
