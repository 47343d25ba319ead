// SPDX-License-Identifier: Apache-2.0
// Repairs of damaged images of every format with the n-th read failing once while the plan is made:
// what could not be read is not taken for empty. The plan that comes out, if any, makes the image
// no worse, and a safe one changes no byte that the guest reads.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "io/fault.h"
#include "repair/engine.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/seeds.h"

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
  // False: nothing failed any more.
  bool Fail(const ByteVector& image, RepairMode mode, uint64_t at) {
    FaultPlan fault;
    fault.kind = FaultPlan::Kind::kRead;
    fault.at = at;
    FaultStore store(image, fault);
    RepairOptions options;
    options.mode = mode;
    options.check = Quietly();
    auto plan = MakePlan(store, format_, options);
    if (!store.Fired()) return false;
    if (!plan || plan->Empty()) return true;
    ++plans_;
    // Nothing fails from here on: this is what a commit would make of the image.
    const MemoryStore sound(image);
    const Damage then = DamageOf(format_, *plan->overlay), old = DamageOf(format_, sound);
    EXPECT_LE(then.corruptions, old.corruptions) << "then\n" << then.text << "old\n" << old.text;
    if (mode != RepairMode::kSafe) return true;
    const auto before = Readable(format_, sound), after = Readable(format_, *plan->overlay);
    EXPECT_TRUE(before.empty() || !after.empty()) << "it does not open any more";
    for (const auto& [offset, block] : before) {
      const auto now = after.find(offset);
      EXPECT_TRUE(now != after.end() && now->second == block) << "guest bytes at " << offset;
    }
    return true;
  }

  const Format& format_ = *FindFormat(GetParam());
  uint64_t plans_ = 0;
};

TEST_P(PlanFaults, AReadThatFailsIsNoDamage) {
  const auto seeds = fuzz::SeedsOf(format_);
  for (uint64_t number = 1; number <= 20; ++number) {
    std::mt19937_64 random(number);
    ByteVector image = seeds[number % seeds.size()].bytes;
    fuzz::Mutate(&image, format_, random);
    for (const RepairMode mode : {RepairMode::kSafe, RepairMode::kAll}) {
      for (uint64_t at = 1; at < 20'000; at += std::max<uint64_t>(1, at / 8)) {
        SCOPED_TRACE(fmt::format("damage {}, mode {}, read {}", number, ToText(mode), at));
        if (!Fail(image, mode, at) || HasFailure()) break;
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(plans_, 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, PlanFaults, testing::Values("qcow2", "qcow", "vpc", "cow"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace imgfsck
