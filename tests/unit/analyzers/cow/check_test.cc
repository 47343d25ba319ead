// SPDX-License-Identifier: Apache-2.0
// Each kind of damage of a COW image raises its problem and no other.
#include "analyzers/cow/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <utime.h>

#include <functional>
#include <sstream>

#include "analyzers/cow/state.h"
#include "tests/unit/formats/cow/fixture.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck::cow {
namespace {

// A file in memory with a hole, which memory alone does not have.
class HoleySource : public MemoryStore {
 public:
  HoleySource(ByteVector bytes, uint64_t begin, uint64_t end)
      : MemoryStore(std::move(bytes)), begin_(begin), end_(end) {}
  Result<HostExtent> ExtentAt(uint64_t offset) const override {
    if (offset < begin_) return HostExtent{offset, begin_ - offset, false};
    if (offset < end_) return HostExtent{offset, end_ - offset, true};
    return HostExtent{offset, Size() - offset, false};
  }

 private:
  uint64_t begin_, end_;
};

CheckReport Check(const ByteSource& source, CheckOptions options = {}) {
  CheckReport report;
  EXPECT_TRUE(kCowChecker.run(source, options, &report));
  return report;
}

std::vector<std::string> Codes(const CheckReport& report) {
  std::vector<std::string> codes;
  for (const auto& [problem, total] : report.findings.totals()) {
    codes.emplace_back(InfoOf(problem).code);
  }
  return codes;
}

struct Case {
  LayoutId layout;
  std::string codes;  // expected, blank-separated
  std::function<void(Fixture&)> damage;
  bool deep = false;
};

std::vector<Case> Cases() {
  constexpr LayoutId v3 = LayoutId::kUml3, v2 = LayoutId::kUml2, qemu = LayoutId::kQemu64;
  return {
      {v3, "", [](Fixture&) {}, true},
      {v2, "cow-bitmap-rounding", [](Fixture&) {}, true},  // 300 sectors: four have no bit
      {qemu, "",
       [](Fixture& f) {
         f.path = "base.img";
         f.WriteHeader();
       },
       true},
      {v3, "cow-magic", [](Fixture& f) { f.bytes[2] = 'x'; }},
      {v3, "cow-version", [](Fixture& f) { f.bytes[7] = 9; }},
      {v3, "cow-empty-file", [](Fixture& f) { f.bytes.clear(); }},
      {v3, "cow-header-truncated", [](Fixture& f) { f.bytes.resize(1000); }},
      {LayoutId::kUml2Wide, "cow-layout-foreign-abi cow-bitmap-rounding", [](Fixture&) {}},
      {LayoutId::kQemu32, "cow-layout-foreign-abi", [](Fixture&) {}},
      {LayoutId::kUml3Broken, "cow-v3-broken-layout", [](Fixture&) {}},
      {LayoutId::kUml1, "cow-endian cow-bitmap-rounding",
       [](Fixture& f) { std::reverse(f.bytes.begin(), f.bytes.begin() + 4); }},
      {v3, "cow-sectorsize", [](Fixture& f) { f.Put(20, 4, 513); }},
      {v3, "cow-alignment", [](Fixture& f) { f.Put(24, 4, 0); }},
      {v3, "cow-alignment", [](Fixture& f) { f.Put(24, 4, 4097); }},
      {v3, "cow-format-field", [](Fixture& f) { f.Put(28, 4, 7); }},
      {v3, "cow-size-zero", [](Fixture& f) { f.Put(12, 8, 0); }},
      {v3, "cow-size-unaligned", [](Fixture& f) { f = Fixture(LayoutId::kUml3, 300 * 512 - 10); }},
      {v3, "cow-size-overflow", [](Fixture& f) { f.Put(12, 8, uint64_t{1} << 63); }},
      {v3, "cow-path-unterminated",
       [](Fixture& f) { std::fill_n(f.bytes.begin() + 32, 4096, uint8_t{'/'}); }},
      {v3, "cow-path-empty",
       [](Fixture& f) {
         f.path = "";
         f.WriteHeader();
       }},
      {v3, "cow-path-relative",
       [](Fixture& f) {
         f.path = "base";
         f.WriteHeader();
       }},
      {v3, "cow-path-garbage", [](Fixture& f) { f.bytes[32 + 100] = 'x'; }},
      {v3, "cow-bitmap-truncated cow-data-beyond-eof cow-file-length",
       [](Fixture& f) { f.bytes.resize(8192 + 20); }},
      {v2, "cow-bitmap-data-alias", [](Fixture& f) { f = Fixture(LayoutId::kUml2, 3905 * 512); }},
      {v3, "cow-bitmap-bits-past-size", [](Fixture& f) { f.bytes[8192 + 37] |= 0x80; }},
      {v3, "cow-bitmap-bits-past-size", [](Fixture& f) { f.bytes[8192 + 1000] = 1; }},
      {qemu, "cow-data-beyond-eof", [](Fixture& f) { f.SetBit(298); }},
      {qemu, "cow-data-beyond-eof", [](Fixture& f) { f.bytes.resize(f.bytes.size() - 1); }},
      {v3, "cow-data-unmapped", [](Fixture& f) { f.PutData(33, 0x11); }, true},
      {v3, "", [](Fixture& f) { f.PutData(33, 0x11); }},
      {v3, "cow-file-length", [](Fixture& f) { f.bytes.resize(f.bytes.size() - 512); }},
      {v3, "cow-trailing-data", [](Fixture& f) { f.bytes.resize(f.bytes.size() + 5000); }},
      {v3, "cow-header-upgraded-in-place cow-trailing-data cow-file-length",
       [](Fixture& f) {
         // A version 3 header over a version 2 body: the data begins at 4608 instead of 12288.
         Fixture old = Fixture::Sound(LayoutId::kUml2);
         std::copy_n(f.bytes.begin(), 4128, old.bytes.begin());
         f.bytes = old.bytes;
       }},
  };
}

TEST(CowCheck, EveryDamageRaisesItsProblem) {
  for (const Case& one : Cases()) {
    Fixture fixture = Fixture::Sound(one.layout);
    one.damage(fixture);
    MemoryStore store(fixture.bytes);
    CheckOptions options;
    options.deep = one.deep;
    std::vector<std::string> codes = Codes(Check(store, options)), expected;
    std::istringstream words(one.codes);
    for (std::string word; words >> word;) expected.push_back(word);
    if (one.codes.find("upgraded") != std::string::npos) {
      // How much of the old body lies behind the new end is of no concern.
      EXPECT_THAT(codes, testing::Contains("cow-header-upgraded-in-place"));
      continue;
    }
    // /images/base.img does not exist; that is another test's subject.
    std::erase(codes, "cow-backing-missing");
    EXPECT_THAT(codes, testing::UnorderedElementsAreArray(expected))
        << LayoutOf(one.layout).name << ": " << one.codes;
  }
}

TEST(CowCheck, ALayoutThatCannotBeToldIsSaid) {
  // A QEMU image whose guest data completes a header of User-Mode Linux, down to the file's length.
  Fixture fixture(LayoutId::kQemu64, 300 * 512);
  fixture.Store(299, 1);
  fixture.Put(4108, 8, 294 * 512);
  fixture.Put(4116, 4, 512);
  MemoryStore store(fixture.bytes);
  CheckReport report = Check(store);
  EXPECT_TRUE(report.findings.Has(Problem::kCowLayoutAmbiguous));
}

TEST(CowCheck, PartialAndMissingSectorsDifferInTheirRepair) {
  Fixture fixture = Fixture::Sound(LayoutId::kQemu64);
  fixture.SetBit(291);
  fixture.SetBit(292);
  fixture.bytes.resize(fixture.geometry().HostOf(291) + 100);
  MemoryStore store(fixture.bytes);
  CheckReport report = Check(store);
  std::vector<std::pair<uint64_t, RepairClass>> found;
  for (const Finding& f : report.findings.kept()) {
    if (f.problem != Problem::kCowDataBeyondEof) continue;
    found.emplace_back(f.guest->offset.value / 512, f.repair_or_default());
  }
  EXPECT_THAT(found, testing::ElementsAre(std::pair(291u, RepairClass::kSafe),
                                          std::pair(292u, RepairClass::kAll)));
}

TEST(CowCheck, MarkedHolesAreCrashResidue) {
  Fixture fixture = Fixture::Sound(LayoutId::kUml3);
  Geometry g = fixture.geometry();
  HoleySource source(fixture.bytes, g.HostOf(60), g.HostOf(70));
  CheckOptions options;
  options.deep = true;
  CheckReport report = Check(source, options);
  EXPECT_EQ(report.findings.Units(Problem::kCowDataHoleSet), 2u);  // 63 and 64
}

class CowBase : public testing::Test {
 protected:
  void WriteBase(const ByteVector& bytes, int64_t mtime) {
    auto store = FileStore::Open(base_, FileStore::Mode::kCreateNew);
    ASSERT_TRUE(store);
    ASSERT_TRUE((*store)->WriteAt(0, bytes));
    utimbuf times{mtime, mtime};
    ASSERT_EQ(utime(base_.c_str(), &times), 0);
  }
  Fixture Overlay(LayoutId id = LayoutId::kUml3) {
    Fixture fixture = Fixture::Sound(id);
    fixture.path = base_;
    fixture.WriteHeader();
    return fixture;
  }
  std::vector<std::string> CodesOf(const Fixture& fixture, bool chain, bool deep = false) {
    CheckOptions options;
    options.path = dir_.File("overlay.cow");
    options.chain = chain;
    options.deep = deep;
    MemoryStore store(fixture.bytes);
    return Codes(Check(store, options));
  }
  TempDir dir_;
  std::string base_ = dir_.File("base.img");
};

TEST_F(CowBase, SizeAndTimeAreCompared) {
  EXPECT_THAT(CodesOf(Overlay(), false), testing::ElementsAre("cow-backing-missing"));
  WriteBase(ByteVector(300 * 512), 1700000000);
  EXPECT_THAT(CodesOf(Overlay(), false), testing::IsEmpty());
  Fixture other = Overlay();
  other.mtime = 5;
  other.WriteHeader();
  EXPECT_THAT(CodesOf(other, false), testing::ElementsAre("cow-backing-mtime"));
  Fixture larger = Overlay();
  larger = Fixture(LayoutId::kUml3, 301 * 512);
  larger.path = base_;
  larger.WriteHeader();
  EXPECT_THAT(CodesOf(larger, false), testing::ElementsAre("cow-backing-size"));
  // QEMU's files are compared only with the chain, and may be smaller than their base.
  Fixture qemu(LayoutId::kQemu64, 301 * 512);
  qemu.path = base_;
  qemu.WriteHeader();
  EXPECT_THAT(CodesOf(qemu, false), testing::IsEmpty());
  EXPECT_THAT(CodesOf(qemu, true), testing::ElementsAre("cow-backing-size"));
}

TEST_F(CowBase, AMergedOverlayIsRecognised) {
  Fixture fixture = Overlay();
  ByteVector base(300 * 512);
  for (uint64_t sector : {0u, 1u, 9u, 63u, 64u, 200u, 255u, 290u}) {
    std::fill_n(base.begin() + static_cast<long>(sector * 512), 512,
                static_cast<uint8_t>(sector + 1));
  }
  WriteBase(base, 1800000000);
  EXPECT_THAT(CodesOf(fixture, true, true),
              testing::UnorderedElementsAre("cow-backing-mtime", "cow-data-redundant",
                                            "cow-backing-newer-merged"));
}

TEST_F(CowBase, ABaseThatIsACowIsSaid) {
  Fixture inner = Fixture::Sound(LayoutId::kUml3);
  WriteBase(inner.bytes, 1700000000);
  Fixture outer(LayoutId::kUml3, inner.bytes.size());
  outer.path = base_;
  outer.WriteHeader();
  EXPECT_THAT(CodesOf(outer, true), testing::ElementsAre("cow-backing-is-cow"));
}

TEST_F(CowBase, AnImageOverItselfIsACycle) {
  WriteBase(ByteVector(300 * 512), 1700000000);
  CheckOptions options;
  options.path = base_;
  Fixture fixture = Overlay();
  MemoryStore store(fixture.bytes);
  EXPECT_THAT(Codes(Check(store, options)), testing::ElementsAre("cow-chain-cycle"));
}

}  // namespace
}  // namespace imgfsck::cow
