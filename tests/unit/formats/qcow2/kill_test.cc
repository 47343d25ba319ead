// SPDX-License-Identifier: Apache-2.0
// Every operation is killed at every write it does, with unsynced writes kept, lost or torn. What a
// new process finds must have no damage beyond leaks and the marks of an unclean end, and each
// sector must read as before the operation or as after it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "io/fault.h"
#include "tests/unit/formats/qcow2/image_fixture.h"

namespace imgfsck::qcow2 {
namespace {

using Unsynced = FaultPlan::Unsynced;

struct Operation {
  const char* name;
  Status (*run)(Driver& driver);
};

std::ostream& operator<<(std::ostream& out, const Operation& o) { return out << o.name; }

const Operation kOperations[] = {
    {"write", [](Driver& d) { return d.Write(3000, Pattern(1, 9000)); }},
    {"overwrite", [](Driver& d) { return d.Write(17 * 1024 + 100, Pattern(2, 30000)); }},
    {"write_far", [](Driver& d) { return d.Write(d.VirtualSize() - 5000, Pattern(3, 5000)); }},
    {"write_much", [](Driver& d) { return d.Write(0, Pattern(4, d.VirtualSize())); }},
    {"compress", [](Driver& d) { return d.WriteCompressed(0, ByteVector(16 * 4096, 9)); }},
    {"zero", [](Driver& d) { return d.Zero(1000, 60000); }},
    {"discard", [](Driver& d) { return d.Discard(0, d.VirtualSize()); }},
    {"snapshot_create", [](Driver& d) { return d.SnapshotCreate("new"); }},
    {"snapshot_delete", [](Driver& d) { return d.SnapshotDelete("first"); }},
    {"snapshot_apply", [](Driver& d) { return d.SnapshotApply("first"); }},
    {"bitmap_add", [](Driver& d) { return d.BitmapAdd("more", 1024, true); }},
    {"bitmap_remove", [](Driver& d) { return d.BitmapRemove("bits"); }},
    {"grow", [](Driver& d) { return d.Resize(3 << 20); }},
    {"shrink", [](Driver& d) { return d.Resize(50 << 10); }},
    {"empty", [](Driver& d) { return d.Empty(); }},
    {"backing",
     [](Driver& d) {
       return d.SetBacking(BackingReference{"/x", "raw"});
     }},
};

struct Layout {
  const char* name;
  CreateOptions options;
};

std::ostream& operator<<(std::ostream& out, const Layout& l) { return out << l.name; }

const Layout kLayouts[] = {
    {"c512", {{"cluster_size", "512"}}},
    {"c4k", {{"cluster_size", "4k"}}},
    {"c1kr1", {{"cluster_size", "1k"}, {"refcount_bits", "1"}}},
    {"lazy", {{"cluster_size", "1k"}, {"lazy_refcounts", "on"}}},
    {"extl2", {{"cluster_size", "16k"}, {"extended_l2", "on"}}},
    {"v2", {{"cluster_size", "1k"}, {"compat", "v2"}}},
};

// An image with something of everything in it.
ByteVector Seasoned(const Layout& layout, bool with_snapshot) {
  MemoryStore store(NewImage(200 << 10, layout.options));
  auto driver = OpenStore(kQcow2Format, store);
  bool v3 = layout.options.count("compat") == 0;
  EXPECT_TRUE(driver->Write(16 << 10, Pattern(20, 40000)));
  EXPECT_TRUE(driver->WriteCompressed(96 << 10, ByteVector(32 << 10, 5)));
  if (with_snapshot) {
    EXPECT_TRUE(driver->SnapshotCreate("first"));
    EXPECT_TRUE(driver->Write(20 << 10, Pattern(21, 5000)));
  }
  EXPECT_TRUE(driver->Zero(160 << 10, 20000));
  if (v3) {
    EXPECT_TRUE(driver->BitmapAdd("bits", 1024, true));
  }
  EXPECT_TRUE(driver->Write(190 << 10, Pattern(22, 5000)));
  EXPECT_TRUE(driver->Close());
  return store.bytes();
}

bool InUse(const CheckReport& report) {
  return std::ranges::any_of(report.findings.kept(), [](const Finding& finding) {
    return finding.info().code == "qcow2-bitmap-in-use";
  });
}

// Only what a crash may leave (sheet, section 13): leaks, counts too high, marks of an unclean end.
std::string Damage(const ByteVector& image) {
  MemoryStore store(image);
  CheckOptions options;
  options.threads = 1;
  auto report = CheckImage(store, kQcow2Format, options);
  if (!report) return report.error().message;
  bool dirty = (image[79] & 1) != 0;
  std::string text;
  for (const Finding& finding : report->findings.kept()) {
    std::string code(finding.info().code);
    Severity severity = finding.severity_or_default();
    if (severity == Severity::kInfo || severity == Severity::kLeak) continue;
    if (code == "qcow2-bitmap-in-use" || code == "qcow2-hdr-dirty") continue;
    // What else leaks may look like.
    if (code == "qcow2-snap-orphan-l1") continue;
    if (code == "qcow2-l2-orphan" && severity == Severity::kWarning) continue;
    if (code == "qcow2-l2-empty-with-leaks" && image[7] == 2) continue;
    // A cluster that is nobody else's any more may still look shared; never the reverse.
    if ((code == "qcow2-l2-copied" || code == "qcow2-l1-copied") &&
        finding.detail.starts_with("clear")) {
      continue;
    }
    // A bitmap in use has the length that the disk had, and is worth nothing anyway.
    if (code == "qcow2-bitmap-tail-bits" && InUse(*report)) continue;
    // Lazy refcounts: the tree is rebuilt when the image is opened for writing.
    if (dirty && (code.find("refcount") != std::string::npos || code.starts_with("qcow2-rt-") ||
                  code.starts_with("qcow2-rb-"))) {
      continue;
    }
    text += code + " " + finding.Message() + " (" + finding.structure + ")\n";
  }
  return text;
}

// Empty when every sector of the disk is old or new.
std::string Mixed(const ByteVector& now, const ByteVector& before, const ByteVector& after) {
  if (now.size() != before.size() && now.size() != after.size()) return "size";
  for (size_t at = 0; at < now.size(); at += kSector) {
    auto same = [&](const ByteVector& other) {
      // Behind the end of the shorter disk nothing is promised.
      return at >= other.size() || std::equal(now.begin() + static_cast<ptrdiff_t>(at),
                                              now.begin() + static_cast<ptrdiff_t>(at + kSector),
                                              other.begin() + static_cast<ptrdiff_t>(at));
    };
    if (!same(before) && !same(after)) return fmt::format("sector {}", at / kSector);
  }
  return "";
}

ByteVector Contents(const ByteVector& image) {
  MemoryStore store(image);
  OpenOptions options;
  auto driver = kQcow2Format.open(store, nullptr, options);
  EXPECT_TRUE(driver) << (driver ? "" : driver.error().message);
  if (!driver) return {};
  return ReadAll(**driver);
}

class KillTest : public testing::TestWithParam<std::tuple<Layout, Operation, Unsynced>> {};

TEST_P(KillTest, LeavesNothingButLeaks) {
  const auto& [layout, operation, unsynced] = GetParam();
  std::string name = operation.name;
  bool v2 = layout.options.count("compat") != 0;
  bool resizes = name == "grow" || name == "shrink";
  if (v2 && name.starts_with("bitmap")) GTEST_SKIP() << "version 2 has no bitmaps";
  const ByteVector image = Seasoned(layout, !(v2 && resizes));
  ASSERT_EQ(Damage(image), "");
  const ByteVector before = Contents(image);
  ByteVector after;
  {
    MemoryStore store(image);
    auto driver = OpenStore(kQcow2Format, store);
    ASSERT_OK(operation.run(*driver));
    ASSERT_OK(driver->Close());
    driver.reset();
    Verdict verdict = CheckBytes(store);
    ASSERT_TRUE(verdict.sound()) << verdict.text;
    after = Contents(store.bytes());
  }
  for (uint64_t at = 1;; ++at) {
    SCOPED_TRACE(fmt::format("killed at write {}", at));
    FaultStore store(image, {FaultPlan::Kind::kCrash, at, unsynced, at});
    {
      auto driver = OpenStore(kQcow2Format, store);
      ASSERT_NE(driver, nullptr);
      Status status = operation.run(*driver);
      if (status) status = driver->Close();
      ASSERT_EQ(status.has_value(), !store.Fired());
      if (!store.Fired()) break;
    }
    const ByteVector& left = store.Survivor();
    ASSERT_EQ(Damage(left), "");
    ASSERT_EQ(Mixed(Contents(left), before, after), "");
    // It can be written again, and is sound but for leaks.
    MemoryStore again(left);
    auto driver = OpenStore(kQcow2Format, again);
    ASSERT_OK(driver->Write(0, Pattern(30, 3000)));
    ASSERT_OK(driver->Close());
    ASSERT_EQ(Damage(again.bytes()), "");
  }
}

std::string NameOf(const testing::TestParamInfo<KillTest::ParamType>& test) {
  static constexpr const char* kUnsynced[] = {"keep", "lose", "scramble"};
  const auto& [layout, operation, unsynced] = test.param;
  return fmt::format("{}_{}_{}", layout.name, operation.name,
                     kUnsynced[static_cast<int>(unsynced)]);
}

INSTANTIATE_TEST_SUITE_P(
    Qcow2, KillTest,
    testing::Combine(testing::ValuesIn(kLayouts), testing::ValuesIn(kOperations),
                     testing::Values(Unsynced::kKeep, Unsynced::kLose, Unsynced::kScramble)),
    NameOf);

}  // namespace
}  // namespace imgfsck::qcow2
