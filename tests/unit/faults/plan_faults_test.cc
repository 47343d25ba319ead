// SPDX-License-Identifier: Apache-2.0
// Repairs of damaged images of every format. With the n-th read failing once while the plan is
// made: there is no plan. With a place that can never be read: what lies there is not taken for
// empty; the plan, if any, makes the image no worse, and a safe one changes no byte that the guest
// reads.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "io/bad_ranges.h"
#include "io/fault.h"
#include "repair/engine.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/seeds.h"
#include "tests/unit/sanitized.h"

namespace imgfsck {
namespace {

constexpr uint64_t kBlock = 4096;

CheckOptions Quietly() {
  CheckOptions options;
  options.threads = 1;
  return options;
}

std::map<uint64_t, ByteVector> Readable(const Format& format, const ByteSource& source) {
  std::map<uint64_t, ByteVector> blocks;
  auto driver = format.open(source, nullptr, {});
  if (!driver) return blocks;
  const uint64_t size = std::min<uint64_t>((*driver)->VirtualSize(), 1 << 20);
  for (uint64_t at = 0; at < size; at += kBlock) {
    ByteVector block(std::min(kBlock, size - at));
    if ((*driver)->Read(at, block)) blocks.emplace(at, std::move(block));
  }
  return blocks;
}

struct Damage {
  uint64_t corruptions = 0;
  std::string text;
};

Damage DamageOf(const Format& format, const ByteSource& source) {
  auto report = CheckImage(source, format, Quietly());
  EXPECT_TRUE(report);
  if (!report) return {};
  Damage damage{report->findings.FindingsOf(Severity::kCorruption), ""};
  for (const Finding& finding : report->findings.kept()) {
    damage.text += fmt::format("{}: {}\n", finding.info().code, finding.Message());
  }
  return damage;
}

class PlanFaults : public testing::TestWithParam<std::string> {
 protected:
  static RepairOptions Options(RepairMode mode) {
    RepairOptions options;
    options.mode = mode;
    options.check = Quietly();
    return options;
  }

  ByteVector Damaged(uint64_t number) const {
    std::mt19937_64 random(number);
    const auto seeds = fuzz::SeedsOf(format_);
    ByteVector image = seeds[number % seeds.size()].bytes;
    fuzz::Mutate(&image, format_, random);
    return image;
  }

  // False: nothing failed any more.
  bool FailOnce(const ByteVector& image, RepairMode mode, uint64_t at) {
    FaultPlan fault;
    fault.kind = FaultPlan::Kind::kRead;
    fault.at = at;
    FaultStore store(image, fault);
    auto plan = MakePlan(store, format_, Options(mode));
    if (!store.Fired()) return false;
    EXPECT_TRUE(!plan) << "a plan was made of two different views of the image";
    ++refused_;
    return true;
  }

  void FailAlways(const ByteVector& image, RepairMode mode, const HostRange& bad) {
    const MemoryStore sound(image);
    const BadRangeSource medium(sound, {bad});
    auto plan = MakePlan(medium, format_, Options(mode));
    if (!plan || plan->Empty()) return;
    ++plans_;
    const Damage then = DamageOf(format_, *plan->overlay), old = DamageOf(format_, medium);
    EXPECT_LE(then.corruptions, old.corruptions) << "then\n" << then.text << "old\n" << old.text;
    if (mode != RepairMode::kSafe) return;
    const auto before = Readable(format_, medium), after = Readable(format_, *plan->overlay);
    // A header that other readers refuse is put right by a safe repair although ours reads
    // something by it: such images say nothing here.
    auto whole = MakePlan(sound, format_, Options(mode));
    ASSERT_TRUE(whole);
    if (Readable(format_, *whole->overlay) != Readable(format_, sound)) return;
    ++compared_;
    for (const auto& [offset, block] : before) {
      const auto now = after.find(offset);
      EXPECT_TRUE(now != after.end() && now->second == block) << "guest bytes at " << offset;
    }
  }

  const Format& format_ = *FindFormat(GetParam());
  uint64_t refused_ = 0, plans_ = 0, compared_ = 0;
};

TEST_P(PlanFaults, OfAReadThatFailedOnceNothingIsConcluded) {
  for (uint64_t number = 1; number <= 40; ++number) {
    const ByteVector image = Damaged(number);
    for (const RepairMode mode : {RepairMode::kSafe, RepairMode::kAll}) {
      for (uint64_t at = 1; at < 20'000; at += std::max<uint64_t>(1, at / (kSanitized ? 3 : 8))) {
        SCOPED_TRACE(fmt::format("damage {}, mode {}, read {}", number, ToText(mode), at));
        if (!FailOnce(image, mode, at) || HasFailure()) break;
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(refused_, 0u);
}

TEST_P(PlanFaults, WhatCanNeverBeReadIsNotTakenForEmpty) {
  constexpr uint64_t kPlaces = 12, kSector = 512;
  for (uint64_t number = 1; number <= 40; ++number) {
    const ByteVector image = Damaged(number);
    std::mt19937_64 random(number);
    for (uint64_t place = 0; place < kPlaces && image.size() > kSector; ++place) {
      const uint64_t at = random() % (image.size() / kSector) * kSector;
      for (const RepairMode mode : {RepairMode::kSafe, RepairMode::kAll}) {
        SCOPED_TRACE(fmt::format("damage {}, mode {}, at {:#x}", number, ToText(mode), at));
        FailAlways(image, mode, MakeHostRange(at, kSector));
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(plans_, 0u);
  EXPECT_GT(compared_, 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, PlanFaults, testing::Values("qcow2", "qcow", "vpc", "cow"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace imgfsck
