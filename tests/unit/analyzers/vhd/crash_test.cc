// SPDX-License-Identifier: Apache-2.0
// The machine stops at every write of the driver in turn, with unsynced writes kept, lost or torn:
// the check finds leaked space at worst, every guest sector reads as before or as written, and what
// was flushed is there.
#include <gtest/gtest.h>

#include "io/fault.h"
#include "tests/unit/analyzers/vhd/check_helpers.h"

namespace imgfsck::vhd {
namespace {

struct Shape {
  std::string name;
  MemoryStore (*make)();
};

class VhdCrash : public testing::TestWithParam<Shape> {};

constexpr uint64_t kSecondWrite = 7 * kSoundBlock - 1024;  // ends in one block, begins in another

// One flushed write into a new block, then writes that are not flushed.
Status Work(Driver& driver, ByteVector* expected_flushed, bool* flushed) {
  ByteVector first = Pattern(21, 3000);
  std::ranges::copy(first, expected_flushed->begin() + 2 * kSoundBlock + 100);
  IMG_RETURN_IF_ERROR(driver.Write(2 * kSoundBlock + 100, first));
  IMG_RETURN_IF_ERROR(driver.Flush());
  *flushed = true;
  IMG_RETURN_IF_ERROR(driver.Write(kSecondWrite, Pattern(22, 2 * kSoundBlock)));
  IMG_RETURN_IF_ERROR(driver.Write(kSoundBlock + kSoundBlock / 2, Pattern(23, 5120)));
  IMG_RETURN_IF_ERROR(driver.Zero(4 * kSoundBlock, 70'000));
  return driver.Close();
}

ByteVector Content(ByteVector bytes, const ByteVector& base) {
  MemoryStore store(std::move(bytes));
  auto driver = kFormat.open(store, nullptr, {});
  EXPECT_TRUE(driver) << (driver ? "" : driver.error().message);
  if (!driver) return {};
  (*driver)->SetBackingReader(ReaderOf(base));
  return ReadAll(**driver);
}

// The image after the same work on a store that never fails.
ByteVector Finished(const ByteVector& initial, const ByteVector& base) {
  MemoryStore store(initial);
  auto driver = OpenStore(kFormat, store);
  driver->SetBackingReader(ReaderOf(base));
  ByteVector ignored(kSoundSize);
  bool flushed = false;
  EXPECT_TRUE(Work(*driver, &ignored, &flushed));
  return store.bytes();
}

TEST_P(VhdCrash, LeaksSpaceAtWorst) {
  const ByteVector base = Pattern(77, kSoundSize), initial = GetParam().make().bytes();
  const ByteVector old = Content(initial, base);
  const ByteVector done = Content(Finished(initial, base), base);
  using Unsynced = FaultPlan::Unsynced;
  int crashes = 0;
  for (Unsynced unsynced : {Unsynced::kKeep, Unsynced::kLose, Unsynced::kScramble}) {
    for (uint64_t at = 1;; ++at) {
      FaultPlan plan;
      plan.kind = FaultPlan::Kind::kCrash;
      plan.at = at;
      plan.unsynced = unsynced;
      plan.seed = at;
      FaultStore store(initial, plan);
      auto driver = OpenStore(kFormat, store);
      ASSERT_TRUE(driver);
      driver->SetBackingReader(ReaderOf(base));
      ByteVector flushed_content = old;
      bool flushed = false;
      Status worked = Work(*driver, &flushed_content, &flushed);
      EXPECT_NE(worked.has_value(), store.Fired());
      ByteVector now = Content(store.Survivor(), base);
      MemoryStore survivor(store.Survivor());
      CheckReport report = Check(survivor);
      for (const Finding& f : report.findings.kept()) {
        EXPECT_TRUE(f.severity_or_default() == Severity::kInfo ||
                    f.problem == Problem::kVhdBatLeakedSpace)
            << at << " " << Said(report);
      }
      if (!store.Fired()) {
        EXPECT_EQ(Said(report), "");
        break;
      }
      ++crashes;
      for (uint64_t s = 0; s < old.size(); s += 512) {
        auto same = [&](const ByteVector& other) {
          return std::equal(now.begin() + static_cast<ptrdiff_t>(s),
                            now.begin() + static_cast<ptrdiff_t>(s + 512),
                            other.begin() + static_cast<ptrdiff_t>(s));
        };
        bool kept = flushed ? same(flushed_content) || same(done) : same(old) || same(done);
        ASSERT_TRUE(kept) << "write " << at << " sector " << s / 512;
      }
    }
  }
  EXPECT_GT(crashes, 20);
}

INSTANTIATE_TEST_SUITE_P(Kinds, VhdCrash,
                         testing::Values(Shape{"dynamic", SoundDynamic}, Shape{"child", SoundChild},
                                         Shape{"tap", SoundTap}),
                         [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace imgfsck::vhd
