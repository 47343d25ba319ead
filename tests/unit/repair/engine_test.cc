// SPDX-License-Identifier: Apache-2.0
// Which passes the engine keeps, which it drops, and that it says so.
#include "repair/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/bytes.h"
#include "tests/unit/repair/toy.h"

namespace imgfsck {
namespace {

using testing::HasSubstr;
using toy::Always;
using toy::Get;
using toy::Put;
using toy::Wants;

constexpr Pass kMagicPass{"magic", 10, "restore the magic", Wants<toy::kMagic>, toy::MendMagic};
constexpr Pass kFlagPass{"flag", 20, "restore the flag", Wants<toy::kFlag>, toy::MendFlag};

constexpr Pass kCountPass{"counts", 90, "recompute counts", toy::WantsCounts, toy::MendCounts};

struct Planned {
  std::unique_ptr<MemoryStore> source;
  Plan plan;
  const PassRun* Run(std::string_view name) const {
    for (const PassRun& run : plan.passes) {
      if (run.name == name) return &run;
    }
    return nullptr;
  }
  bool Kept(std::string_view name) const { return Run(name) != nullptr && !Run(name)->dropped; }
  bool Dropped(std::string_view name) const { return Run(name) != nullptr && Run(name)->dropped; }
};

Planned MakeToyPlan(ByteVector image, std::span<const Pass> passes,
                    RepairMode mode = RepairMode::kAll) {
  Planned planned;
  planned.source = std::make_unique<MemoryStore>(std::move(image));
  const ByteVector before = planned.source->bytes();
  const Repairer repairer{"toy", passes, nullptr};
  RepairOptions options;
  options.mode = mode;
  auto plan = MakePlan(*planned.source, RepairKit{&repairer, toy::Check}, options);
  EXPECT_TRUE(plan) << plan.error().message;
  planned.plan = std::move(*plan);
  EXPECT_EQ(planned.source->bytes(), before) << "a plan writes nothing";
  return planned;
}

TEST(Engine, ASoundImageHasAnEmptyPlan) {
  const std::array passes = {kMagicPass, kFlagPass, kCountPass};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  EXPECT_TRUE(planned.plan.Empty());
  EXPECT_TRUE(planned.plan.passes.empty());
  EXPECT_TRUE(planned.plan.before.findings.empty());
}

TEST(Engine, CountsAreMended) {
  ByteVector image = toy::SoundImage();
  image[toy::CountOf(3)] = 0;
  image[toy::CountOf(9)] = 1;
  const std::array passes = {kCountPass};
  auto planned = MakeToyPlan(image, passes);
  EXPECT_TRUE(planned.Kept("counts"));
  EXPECT_EQ(planned.plan.patches, 2u);
  EXPECT_EQ(planned.plan.bytes, 2u);
  EXPECT_TRUE(planned.plan.Final().findings.empty());
  EXPECT_EQ(BytesOf(*planned.plan.overlay), toy::SoundImage());
}

TEST(Engine, ModesChoosePasses) {
  ByteVector image = toy::SoundImage();
  image[toy::CountOf(3)] = 0;
  const std::array passes = {kMagicPass, kCountPass};
  EXPECT_FALSE(MakeToyPlan(image, passes, RepairMode::kSafe).plan.Empty());
  EXPECT_TRUE(MakeToyPlan(image, passes, RepairMode::kLeaks).plan.Empty());
  image[0] = 'X';  // the signature is restored by `all` only
  EXPECT_TRUE(MakeToyPlan(image, passes, RepairMode::kSafe).plan.Empty());
}

TEST(Engine, WhatComesBackIsMendedInTheNextRound) {
  ByteVector image = toy::SoundImage();
  image[0] = 'X';
  image[toy::CountOf(3)] = 0;
  image[toy::CountOf(9)] = 4;
  // The counts' turn comes before the signature's: only a second round can mend them.
  const std::array passes = {kCountPass, kMagicPass};
  auto planned = MakeToyPlan(image, passes);
  EXPECT_TRUE(planned.Kept("magic"));
  EXPECT_TRUE(planned.Kept("counts"));
  EXPECT_EQ(BytesOf(*planned.plan.overlay), toy::SoundImage());
}

TEST(Engine, ProblemsThatBecomeVisibleAreNotNew) {
  ByteVector image = toy::SoundImage();
  image[2] = 1;                                 // there was a second table
  image[toy::kSecondTable * kSector + 2] = 10;  // with a sector that nobody counted
  image[10 * kSector] = 0x77;
  const std::array passes = {kFlagPass, kCountPass};
  auto planned = MakeToyPlan(image, passes);
  EXPECT_TRUE(planned.Kept("flag"));
  EXPECT_TRUE(planned.Kept("counts"));
  EXPECT_TRUE(planned.plan.Final().findings.empty());
}

Result<PassOutcome> ScribbleOnData(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 5 * kSector + 17, 0xee));
  PassOutcome outcome;
  outcome.changes = 1;
  return outcome;
}

TEST(Engine, AnUndeclaredGuestByteDropsThePass) {
  ByteVector image = toy::SoundImage();
  image[toy::CountOf(3)] = 0;
  const std::array passes = {Pass{"scribble", 1, "scribble", Always, ScribbleOnData}, kCountPass};
  auto planned = MakeToyPlan(image, passes);
  ASSERT_TRUE(planned.Dropped("scribble"));
  EXPECT_THAT(planned.Run("scribble")->reason, HasSubstr("512 guest bytes at 0x0"));
  EXPECT_TRUE(planned.Kept("counts"));
  EXPECT_EQ(BytesOf(*planned.plan.overlay), toy::SoundImage());
}

Result<PassOutcome> ScribbleAndSaySo(const PassContext& context) {
  IMG_ASSIGN_OR_RETURN(PassOutcome outcome, ScribbleOnData(context));
  outcome.changed = {{std::string(kActiveLayer), MakeGuestRange(0, kSector)}};
  outcome.lost = outcome.changed;
  return outcome;
}

TEST(Engine, DeclaredGuestBytesOnlyWithAll) {
  const std::array passes = {Pass{"scribble", 1, "scribble", Always, ScribbleAndSaySo}};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  EXPECT_TRUE(planned.Kept("scribble"));
  ASSERT_EQ(planned.plan.lost.size(), 1u);
  EXPECT_EQ(planned.plan.lost[0].guest, MakeGuestRange(0, kSector));
  EXPECT_EQ(planned.plan.changed, planned.plan.lost);
  auto safe = MakeToyPlan(toy::SoundImage(), passes, RepairMode::kSafe);
  ASSERT_TRUE(safe.Dropped("scribble"));
  EXPECT_THAT(safe.Run("scribble")->reason, HasSubstr("only --repair=all"));
  EXPECT_TRUE(safe.plan.Empty());
}

// Moves guest sector 1 to the file's sector 9: the bytes stay, the mapping and the counts change.
Result<PassOutcome> Move(const PassContext& context) {
  if (Get(context.image, kSector + 1) != 3) return PassOutcome{};
  ByteVector bytes(kSector);
  IMG_RETURN_IF_ERROR(ReadExact(context.image, 3 * kSector, bytes));
  IMG_RETURN_IF_ERROR(context.image.WriteAt(9 * kSector, bytes));
  IMG_RETURN_IF_ERROR(Put(context.image, kSector + 1, 9));
  PassOutcome outcome;
  outcome.changes = 1;
  return outcome;
}

TEST(Engine, ANewProblemDropsThePass) {
  const std::array passes = {Pass{"move", 1, "move", Always, Move}};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  ASSERT_TRUE(planned.Dropped("move"));
  EXPECT_THAT(planned.Run("move")->reason, HasSubstr("new problem"));
  EXPECT_TRUE(planned.plan.Empty());
}

constexpr std::array kMoveMayAdd = {toy::kLow, toy::kLeak};
constexpr Pass kMovePass{"move", 1, "move", Always, Move, {}, kMoveMayAdd};

TEST(Engine, WorkLeftToALaterPassIsFine) {
  const std::array passes = {kMovePass, kCountPass};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  EXPECT_TRUE(planned.Kept("move"));
  EXPECT_TRUE(planned.Kept("counts"));
  EXPECT_TRUE(planned.plan.Final().findings.empty());
  EXPECT_TRUE(planned.plan.changed.empty()) << "the guest sees the same bytes at another place";
  EXPECT_EQ(Get(*planned.plan.overlay, kSector + 1), 9);
}

TEST(Engine, WorkThatNobodyFinishesTakesThePassAway) {
  ByteVector image = toy::SoundImage();
  image[2] = 1;
  image[toy::kSecondTable * kSector] = 0;
  const std::array passes = {kMovePass, kFlagPass};  // nobody mends counts
  auto planned = MakeToyPlan(image, passes);
  ASSERT_TRUE(planned.Dropped("move"));
  EXPECT_THAT(planned.Run("move")->reason, HasSubstr("could not be finished"));
  EXPECT_EQ(Get(*planned.plan.overlay, kSector + 1), 3);
  EXPECT_EQ(Get(*planned.plan.overlay, 1), 1) << "the other pass stays";
}

Result<PassOutcome> Fail(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 1, 9));
  return Error{ErrorCode::kTooLarge, "it would copy too much", {}};
}

TEST(Engine, AFailingPassLeavesNoTraceAndTakesItsDependants) {
  static constexpr std::array<std::string_view, 1> kNeedsFailing = {"failing"};
  Pass dependant = kCountPass;
  dependant.needs = kNeedsFailing;
  const std::array passes = {Pass{"failing", 1, "fail", Always, Fail}, dependant};
  ByteVector image = toy::SoundImage();
  image[toy::CountOf(3)] = 0;
  auto planned = MakeToyPlan(image, passes);
  ASSERT_TRUE(planned.Dropped("failing"));
  EXPECT_EQ(planned.Run("failing")->reason, "it would copy too much");
  ASSERT_TRUE(planned.Dropped("counts"));
  EXPECT_THAT(planned.Run("counts")->reason, HasSubstr("failing"));
  EXPECT_TRUE(planned.plan.Empty());
}

Result<PassOutcome> OutOfMemory(const PassContext&) {
  return Error{ErrorCode::kOutOfMemory, "no memory", {}};
}

TEST(Engine, RunningOutOfMemoryEndsThePlan) {
  const std::array passes = {Pass{"memory", 1, "eat memory", Always, OutOfMemory}};
  const Repairer repairer{"toy", passes, nullptr};
  MemoryStore source(toy::SoundImage());
  auto plan = MakePlan(source, RepairKit{&repairer, toy::Check}, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kOutOfMemory);
}

PassOutcome OneChange() {
  PassOutcome outcome;
  outcome.changes = 1;
  return outcome;
}

// Sets a byte that means nothing to one value, and the next pass to another: never finished.
Result<PassOutcome> SetA(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 400, 1));
  return OneChange();
}
Result<PassOutcome> SetB(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 400, 2));
  return OneChange();
}

TEST(Engine, PassesThatUndoEachOtherComeToAnEnd) {
  const std::array passes = {Pass{"a", 1, "a", Always, SetA}, Pass{"b", 2, "b", Always, SetB}};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  EXPECT_EQ(Get(*planned.plan.overlay, 400), 2);
}

TEST(Engine, TheImageMayGrowAndShrink) {
  static const auto resize = [](const PassContext& context) -> Result<PassOutcome> {
    IMG_RETURN_IF_ERROR(context.image.SetSize(20 * kSector));
    return OneChange();
  };
  const std::array passes = {Pass{"grow", 1, "grow", Always, resize}};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  EXPECT_FALSE(planned.plan.Empty());
  EXPECT_EQ(planned.plan.overlay->Size(), 20 * kSector);
  EXPECT_EQ(planned.plan.patches, 0u);
}

TEST(Engine, CuttingGuestBytesOffDropsThePass) {
  static const auto cut = [](const PassContext& context) -> Result<PassOutcome> {
    IMG_RETURN_IF_ERROR(context.image.SetSize(7 * kSector));
    return OneChange();
  };
  const std::array passes = {Pass{"cut", 1, "cut", Always, cut}};
  auto planned = MakeToyPlan(toy::SoundImage(), passes);
  ASSERT_TRUE(planned.Dropped("cut"));
  EXPECT_THAT(planned.Run("cut")->reason, HasSubstr("guest bytes at 0x600"));
}

TEST(Engine, PlansAreDeterministic) {
  ByteVector image = toy::SoundImage();
  image[2] = 1;
  image[toy::kSecondTable * kSector + 2] = 10;
  image[toy::CountOf(3)] = 0;
  const std::array passes = {kFlagPass, kMovePass, kCountPass};
  auto first = MakeToyPlan(image, passes), second = MakeToyPlan(image, passes);
  EXPECT_EQ(BytesOf(*first.plan.overlay), BytesOf(*second.plan.overlay));
  EXPECT_EQ(first.plan.patch_hash, second.plan.patch_hash);
}

TEST(Allowed, FollowsModeClassAndSeverity) {
  RepairOptions options;
  options.mode = RepairMode::kSafe;
  EXPECT_TRUE(Allowed(toy::kLow, options));
  EXPECT_FALSE(Allowed(toy::kMagic, options));
  options.also_fix = {toy::kMagic};
  EXPECT_TRUE(Allowed(toy::kMagic, options));
  options.also_fix.clear();
  options.mode = RepairMode::kLeaks;
  EXPECT_TRUE(Allowed(toy::kLeak, options));
  EXPECT_FALSE(Allowed(toy::kLow, options));
  options.mode = RepairMode::kAll;
  EXPECT_TRUE(Allowed(toy::kMagic, options));
  for (const ProblemInfo& info : AllProblems()) {
    const bool kept = info.severity == Severity::kInfo || info.repair == RepairClass::kNone ||
                      (info.severity == Severity::kWarning && info.repair == RepairClass::kAll);
    if (kept) {
      EXPECT_FALSE(Allowed(info.problem, options));
    }
  }
  Finding harmless;
  harmless.problem = toy::kLow;
  harmless.severity = Severity::kInfo;
  EXPECT_FALSE(Allowed(harmless, options));
}

}  // namespace
}  // namespace imgfsck
