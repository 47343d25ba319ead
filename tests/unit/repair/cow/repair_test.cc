// SPDX-License-Identifier: Apache-2.0
// What each repair of a COW image mends, what it leaves alone, and that safe ones change nothing
// that the guest can read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "formats/cow/create.h"
#include "formats/cow/driver.h"
#include "repair/engine.h"
#include "tests/unit/formats/cow/fixture.h"
#include "tests/unit/formats/driver_helpers.h"
#include "tests/unit/io/temp_dir.h"
#include "tests/unit/repair/guest_reader.h"

namespace imgfsck::cow {
namespace {

constexpr RepairMode kSafe = RepairMode::kSafe, kAll = RepairMode::kAll;

struct Case {
  LayoutId layout;
  std::string mended;  // there before, gone after
  RepairMode mode;
  std::function<void(Fixture&)> damage;
  bool fix = false;  // --fix with that code
  bool deep = false;
  bool same_disk = true;  // the guest reads what the sound image held
};

std::vector<Case> Cases() {
  constexpr LayoutId v3 = LayoutId::kUml3, v2 = LayoutId::kUml2, qemu = LayoutId::kQemu64;
  return {
      {v3, "cow-magic", kAll, [](Fixture& f) { f.bytes[2] = 'x'; }},
      {v3, "cow-version", kAll, [](Fixture& f) { f.bytes[7] = 9; }},
      {qemu, "cow-version", kAll, [](Fixture& f) { f.bytes[7] = 0; }},
      {LayoutId::kUml1, "cow-endian", kAll,
       [](Fixture& f) { std::reverse(f.bytes.begin(), f.bytes.begin() + 4); }},
      {v3, "cow-sectorsize", kAll, [](Fixture& f) { f.Put(20, 4, 513); }},
      {v3, "cow-alignment", kAll, [](Fixture& f) { f.Put(24, 4, 0); }},
      {v3, "cow-format-field", kAll, [](Fixture& f) { f.Put(28, 4, 7); }},
      {v3, "cow-path-unterminated", kAll,
       [](Fixture& f) { std::fill_n(f.bytes.begin() + 32, 4096, uint8_t{'/'}); }},
      {v3, "cow-path-garbage", kSafe, [](Fixture& f) { f.bytes[32 + 100] = 'x'; }, true},
      {LayoutId::kUml3Broken, "cow-v3-broken-layout", kSafe, [](Fixture&) {}, true},
      {v3, "cow-bitmap-truncated", kSafe, [](Fixture& f) { f.bytes.resize(8192); }, false, false,
       false},
      {v3, "cow-bitmap-bits-past-size", kSafe, [](Fixture& f) { f.bytes[8192 + 37] |= 0x80; },
       true},
      {v3, "cow-bitmap-bits-past-size", kSafe, [](Fixture& f) { f.bytes[8192 + 999] = 1; }, true},
      {qemu, "cow-data-beyond-eof", kSafe, [](Fixture& f) { f.bytes.resize(f.bytes.size() - 9); },
       false, false, false},
      {qemu, "cow-data-beyond-eof", kAll, [](Fixture& f) { f.SetBit(298); }},
      {v3, "cow-data-unmapped", kAll, [](Fixture& f) { f.PutData(33, 0x11); }, false, true, false},
      {v3, "cow-file-length", kSafe, [](Fixture& f) { f.bytes.resize(f.bytes.size() - 512); },
       true},
      {v3, "cow-trailing-data", kSafe, [](Fixture& f) { f.bytes.resize(f.bytes.size() + 5000); },
       true},
      {v2, "cow-bitmap-rounding", kSafe, [](Fixture&) {}, true},
      {LayoutId::kQemu32, "cow-layout-foreign-abi", kSafe, [](Fixture&) {}, true},
      {LayoutId::kUml1Wide, "cow-layout-foreign-abi cow-bitmap-rounding", kSafe, [](Fixture&) {},
       true},
      {v2, "cow-bitmap-data-alias", kAll,
       [](Fixture& f) {
         f = Fixture(LayoutId::kUml2, 3905 * 512);
         f.Store(0, 0xFE);
         f.Store(3903, 0x31);
       },
       false, false, false},
  };
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

TEST(CowRepair, MendsWhatItSays) {
  ByteVector base = Pattern(6, 3905 * 512);
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.mended);
    Fixture fixture = Fixture::Sound(one.layout);
    Disk sound = ReadDisk(kFormat, MemoryStore(fixture.bytes), "", ReaderOf(base));
    one.damage(fixture);
    MemoryStore store(fixture.bytes);
    RepairOptions options;
    options.mode = one.mode;
    options.check.deep = one.deep;
    for (const std::string& code : Words(one.mended)) {
      if (one.fix) options.also_fix.insert(FindProblem(code)->problem);
    }
    auto plan = MakePlan(store, kFormat, options);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(DroppedPasses(*plan), "");
    for (const std::string& code : Words(one.mended)) {
      EXPECT_TRUE(plan->before.findings.Has(FindProblem(code)->problem)) << code;
      EXPECT_FALSE(plan->Final().findings.Has(FindProblem(code)->problem)) << code;
    }
    EXPECT_EQ(plan->Final().findings.Units(Severity::kCorruption), 0u);
    Disk before = ReadDisk(kFormat, store, "", ReaderOf(base));
    Disk after = ReadDisk(kFormat, *plan->overlay, "", ReaderOf(base));
    ASSERT_FALSE(after.empty());
    ExpectOnlyDeclaredChanges(before, after, *plan, one.mended);
    if (one.same_disk) {
      EXPECT_TRUE(after == sound);
    }
    if (one.mode == kSafe) {
      EXPECT_TRUE(plan->changed.empty());
    }
    auto again = MakePlan(store, kFormat, options);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->patch_hash, plan->patch_hash);
    auto second = MakePlan(*plan->overlay, kFormat, options);
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->Empty());
  }
}

TEST(CowRepair, SafeLeavesSectorsThatAreGone) {
  Fixture fixture = Fixture::Sound(LayoutId::kQemu64);
  fixture.SetBit(298);
  MemoryStore store(fixture.bytes);
  auto plan = MakePlan(store, kFormat, RepairOptions{});
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->Empty());
  RepairOptions all;
  all.mode = kAll;
  auto lossy = MakePlan(store, kFormat, all);
  ASSERT_TRUE(lossy);
  ASSERT_EQ(lossy->lost.size(), 1u);
  EXPECT_EQ(lossy->lost[0].guest, MakeGuestRange(298 * 512, 512));
}

TEST(CowRepair, AnUpgradedHeaderIsTakenBack) {
  Fixture old = Fixture::Sound(LayoutId::kUml2);
  old.SetBit(0, false);  // these lie under the longer header
  old.SetBit(1, false);
  old.SetBit(9, false);
  old.SetBit(63, false);
  ByteVector base = Pattern(6, 300 * 512);
  Disk sound = ReadDisk(kFormat, MemoryStore(old.bytes), "", ReaderOf(base));
  Fixture newer(LayoutId::kUml3);
  std::copy_n(newer.bytes.begin(), 4128, old.bytes.begin());
  MemoryStore store(old.bytes);
  RepairOptions options;
  options.mode = kAll;
  auto plan = MakePlan(store, kFormat, options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(DroppedPasses(*plan), "");
  EXPECT_FALSE(plan->Final().findings.Has(Problem::kCowHeaderUpgradedInPlace));
  EXPECT_TRUE(ReadDisk(kFormat, *plan->overlay, "", ReaderOf(base)) == sound);
}

TEST(CowRepair, AnEmptyFileGetsAHeaderForTheNamedBase) {
  TempDir dir;
  std::string base = dir.Put("base.img", std::string(300 * 512, 'b'));
  MemoryStore store;
  RepairOptions options;
  options.mode = kAll;
  options.relink_parent = base;
  auto plan = MakePlan(store, kFormat, options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(DroppedPasses(*plan), "");
  auto driver = kFormat.open(*plan->overlay, nullptr, {});
  ASSERT_TRUE(driver);
  EXPECT_EQ((*driver)->VirtualSize(), 300u * 512);
  EXPECT_EQ((*driver)->Backing()->name, base);
  EXPECT_EQ(plan->Final().findings.Units(Severity::kCorruption), 0u);
}

TEST(CowRepair, RelinkNamesAnotherBase) {
  TempDir dir;
  std::string base = dir.Put("moved.img", std::string(300 * 512, 'b'));
  Fixture fixture = Fixture::Sound(LayoutId::kUml3);
  MemoryStore store(fixture.bytes);
  RepairOptions options;
  options.mode = kAll;
  options.relink_parent = base;
  auto plan = MakePlan(store, kFormat, options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(DroppedPasses(*plan), "");
  EXPECT_TRUE(plan->Final().findings.empty());
}

TEST(CowRepair, AMergedOverlayIsReset) {
  TempDir dir;
  Fixture fixture = Fixture::Sound(LayoutId::kUml3);
  std::string content(300 * 512, 'b');
  for (uint64_t sector : {0u, 1u, 9u, 63u, 64u, 200u, 255u, 290u}) {
    content.replace(sector * 512, 512, 512, static_cast<char>(sector + 1));
  }
  fixture.path = dir.Put("base.img", content);
  fixture.WriteHeader();
  MemoryStore store(fixture.bytes);
  RepairOptions options;
  options.check.path = dir.Put("disk.cow", "");
  options.also_fix.insert(Problem::kCowBackingNewerMerged);
  options.check.deep = options.check.chain = true;
  auto plan = MakePlan(store, kFormat, options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(DroppedPasses(*plan), "");
  EXPECT_TRUE(plan->Final().findings.empty());
  EXPECT_EQ(plan->Final().counts.allocated_clusters, 0u);
}

}  // namespace
}  // namespace imgfsck::cow
