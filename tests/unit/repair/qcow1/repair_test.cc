// SPDX-License-Identifier: Apache-2.0
// What each repair of a version 1 image mends, what it leaves alone, and that safe ones change
// nothing that the guest can read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <sstream>

#include "formats/common/legacy_aes.h"
#include "formats/qcow1/driver.h"
#include "formats/qcow1/xen.h"
#include "repair/engine.h"
#include "tests/unit/formats/driver_helpers.h"
#include "tests/unit/formats/qcow1/fixture.h"
#include "tests/unit/repair/guest_reader.h"

namespace imgfsck::qcow1 {
namespace {

struct Case {
  std::string mended;  // codes, blank-separated, that are there before and gone after
  RepairMode mode;
  std::function<void(Fixture&)> damage;
  std::string fix = "";  // --fix
  bool deep = false;
  std::string left = "";  // codes of corruption or leaks that stay
};

std::function<void(Fixture&)> Field(void (*change)(Header&)) {
  return [change](Fixture& f) {
    change(f.header);
    f.WriteHeader();
  };
}

constexpr RepairMode kSafe = RepairMode::kSafe, kAll = RepairMode::kAll;

std::vector<Case> HeaderCases() {
  return {
      {"qcow-magic", kAll, Field([](Header& h) { h.magic = 0x51464900; })},
      {"qcow-version", kAll, Field([](Header& h) { h.version = 7; })},
      {"qcow-size-small", kAll, Field([](Header& h) { h.size = 2; })},
      {"qcow-size-overflow", kAll, Field([](Header& h) { h.size = uint64_t{1} << 62; })},
      {"qcow-cluster-bits", kAll, Field([](Header& h) { h.cluster_bits = 0; })},
      {"qcow-cluster-bits", kAll, Field([](Header& h) { h.cluster_bits = 44; })},
      {"qcow-l2-bits", kAll, Field([](Header& h) { h.l2_bits = 0; })},
      {"qcow-l2-bits qcow-cluster-bits", kAll, Field([](Header& h) {
         h.l2_bits = 0xFF;
         h.cluster_bits = 0xFF;
       })},
      {"qcow-crypt", kAll, Field([](Header& h) { h.crypt_method = 77; })},
      {"qcow-padding", kSafe, Field([](Header& h) { h.padding = 0x1234; }), "qcow-padding"},
      {"qcow-mtime", kSafe, Field([](Header& h) { h.mtime = 99; }), "qcow-mtime"},
      {"qcow-size-unaligned", kSafe, Field([](Header& h) { h.size -= 13; }), "qcow-size-unaligned"},
      {"qcow-backing-name", kAll,
       [](Fixture& f) {
         uint64_t at = f.Append(AsBytes(std::string("base.img\x01\x02")), 512);
         f.header.backing_file_offset = at;
         f.header.backing_file_size = 5000;
         f.WriteHeader();
       },
       "", false, ""},
      {"qcow-backing-name", kAll,
       [](Fixture& f) {
         std::string name = "base.img";
         std::copy(name.begin(), name.end(), f.bytes.begin() + kHeaderLength);
         f.header.backing_file_offset = 9;  // of 48
         f.header.backing_file_size = 8;
         f.WriteHeader();
       }},
      // So large that the top table would go on through the tables and clusters behind it.
      {"qcow-l1-offset", kAll, Field([](Header& h) { h.size = uint64_t{1} << 40; })},
  };
}

std::vector<Case> TableCases() {
  return {
      {"qcow-l1-past-eof", kSafe,
       [](Fixture& f) {
         f = Fixture(4 * kMiB);
         f.bytes.resize(64 + 40);
       }},
      {"qcow-l1-offset", kAll, Field([](Header& h) { h.l1_table_offset = 0; })},
      {"qcow-l1-offset", kAll,
       [](Fixture& f) {
         f.header.l1_table_offset = f.EntryOf(0, 9);
         f.WriteHeader();
       }},
      {"qcow-l1-past-eof", kAll, Field([](Header& h) { h.l1_table_offset = uint64_t{1} << 40; }),
       "", false, "qcow-l2-orphan"},
      {"qcow-l1-entry-flag", kAll, [](Fixture& f) { f.SetL1(3, f.L1(3) | kTopBit); }},
      {"qcow-l1-entry-flag", kAll, [](Fixture& f) { f.SetL1(9, kTopBit | 12345); }},
      {"qcow-l1-entry-unaligned", kAll,
       [](Fixture& f) {
         ByteVector table(f.bytes.begin() + static_cast<long>(f.L1(3)),
                          f.bytes.begin() + static_cast<long>(f.L1(3) + 512));
         f.SetL1(3, f.Append(table, 4096));
         f.bytes.insert(f.bytes.begin() + static_cast<long>(f.L1(3)), 1, 0);
         f.SetL1(3, f.L1(3) + 1);
       }},
      {"qcow-l1-entry-past-eof", kAll, [](Fixture& f) { f.SetL1(9, uint64_t{1} << 30); }},
      {"qcow-l2-short", kSafe,
       [](Fixture& f) {
         f.AddTable(11);
         f.bytes.resize(f.bytes.size() - 100);
       }},
      {"qcow-l1-entry-duplicate", kSafe, [](Fixture& f) { f.SetL1(12, f.L1(3)); }},
      {"qcow-l2-implausible", kAll,
       [](Fixture& f) {
         f.AddTable(11);
         for (uint64_t i = 0; i < 40; ++i) f.SetEntry(11, i, 0x7A7B3C4D5E6F7081 - i);
       }},
      {"qcow-meta-overlap", kAll,
       [](Fixture& f) {
         f = Fixture(kMiB, 9, 7);
         f.SetL1(3, f.Append(ByteVector(1536), 512));
         f.SetL1(1, f.L1(3) + 512);
         f.AddCluster(1, 100, 0x31);
       }},
      {"qcow-l2-orphan", kAll,
       [](Fixture& f) {
         f = Fixture(2 * kMiB, 12, 6);  // 8 slots, one lost between two others
         for (uint64_t slot = 0; slot < 8; ++slot) f.AddCluster(slot, 7 * slot % 64, 0x40);
         f.SetL1(5, 0);
       }},
  };
}

std::vector<Case> EntryCases() {
  return {
      {"qcow-l2-entry-unaligned", kAll, [](Fixture& f) { f.SetEntry(3, 7, 0x2001); }},
      {"qcow-l2-entry-past-eof", kAll, [](Fixture& f) { f.SetEntry(3, 7, uint64_t{1} << 24); }},
      {"qcow-cluster-short", kSafe, [](Fixture& f) { f.bytes.resize(f.bytes.size() - 1); },
       "qcow-cluster-short"},
      {"qcow-data-crosslink", kSafe, [](Fixture& f) { f.SetEntry(3, 7, f.EntryOf(0, 9)); }},
      {"qcow-data-on-metadata", kSafe, [](Fixture& f) { f.SetEntry(3, 7, f.L1(0)); }},
      {"qcow-data-crosslink qcow-data-on-metadata qcow-compr-overlap", kSafe,
       [](Fixture& f) {
         for (uint64_t i = 30; i < 40; ++i) f.SetEntry(3, i, f.L1(i % 3 == 0 ? 7 : 0));
         f.SetEntry(0, 50, f.EntryOf(0, 9));
         f.SetEntry(0, 51, f.EntryOf(0, 9));
         f.SetEntry(0, 52, f.EntryOf(0, 2));
       }},
      {"qcow-compr-size", kAll,
       [](Fixture& f) {
         uint64_t at = f.AddStream(3, 7, 0x61);
         f.SetEntry(3, 7, Entry::Compressed(f.geometry(), at, 0).raw);
       }},
      {"qcow-compr-size", kAll,
       [](Fixture& f) { f.SetEntry(3, 7, Entry::Compressed(f.geometry(), f.L1(0), 0).raw); }},
      {"qcow-compr-past-eof", kAll,
       [](Fixture& f) {
         f.AddStream(3, 7, 0x61);
         f.bytes.resize(f.bytes.size() - 20);
       }},
      {"qcow-compr-undecodable", kAll,
       [](Fixture& f) {
         uint64_t at = f.AddStream(3, 7, 0x61);
         std::fill_n(f.bytes.begin() + static_cast<long>(at) + 60, 20, uint8_t{0xFF});
       },
       "", true},
      {"qcow-compr-overlap", kSafe, [](Fixture& f) { f.SetEntry(3, 7, f.EntryOf(0, 2)); }},
      {"qcow-past-size", kSafe,
       [](Fixture& f) {
         f.header.size -= 12 * 4096;
         f.WriteHeader();
         f.AddCluster(15, 52, 1);
       },
       "qcow-past-size"},
      {"qcow-waste", kSafe, [](Fixture& f) { f.Append(ByteVector(5000, 0x44), 4096); },
       "qcow-waste"},
  };
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

struct Outcome {
  Plan plan;
  Disk before, after;
};

Outcome Repair(const MemoryStore& store, RepairOptions options,
               const Driver::BackingReader& backing = nullptr) {
  Outcome outcome;
  auto plan = MakePlan(store, kFormat, options);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
  if (!plan) return outcome;
  outcome.plan = std::move(*plan);
  outcome.before = ReadDisk(kFormat, store, options.check.passphrase, backing);
  outcome.after = ReadDisk(kFormat, *outcome.plan.overlay, options.check.passphrase, backing);
  return outcome;
}

void RunCases(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    SCOPED_TRACE(one.mended);
    Fixture fixture = Fixture::Sound();
    one.damage(fixture);
    MemoryStore store(fixture.bytes);
    RepairOptions options;
    options.mode = one.mode;
    options.check.deep = one.deep;
    if (!one.fix.empty()) options.also_fix.insert(FindProblem(one.fix)->problem);
    Outcome outcome = Repair(store, options);
    EXPECT_EQ(DroppedPasses(outcome.plan), "");
    EXPECT_FALSE(outcome.plan.Empty());
    const Findings& found = outcome.plan.before.findings;
    const Findings& left = outcome.plan.Final().findings;
    for (const std::string& code : Words(one.mended)) {
      EXPECT_TRUE(found.Has(FindProblem(code)->problem)) << code;
      EXPECT_FALSE(left.Has(FindProblem(code)->problem)) << code;
    }
    for (const Finding& finding : left.kept()) {
      if (finding.severity_or_default() < Severity::kLeak) continue;
      EXPECT_NE(one.left.find(finding.info().code), std::string::npos) << finding.Message();
    }
    ExpectOnlyDeclaredChanges(outcome.before, outcome.after, outcome.plan, one.mended);
    if (one.mode == kSafe) {
      EXPECT_TRUE(outcome.plan.changed.empty());
    }
    // The same again gives the same bytes, and a second repair has nothing to do.
    auto again = MakePlan(store, kFormat, options);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->patch_hash, outcome.plan.patch_hash);
    auto second = MakePlan(*outcome.plan.overlay, kFormat, options);
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->Empty());
  }
}

TEST(Qcow1Repair, Headers) { RunCases(HeaderCases()); }
TEST(Qcow1Repair, Tables) { RunCases(TableCases()); }
TEST(Qcow1Repair, Entries) { RunCases(EntryCases()); }

TEST(Qcow1Repair, ABrokenHeaderComesBackAsItWas) {
  for (const Case& one : HeaderCases()) {
    if (one.mode != kAll || one.mended == "qcow-backing-name") continue;
    Fixture fixture = Fixture::Sound();
    const Header sound = fixture.header;
    Disk disk = ReadDisk(kFormat, MemoryStore(fixture.bytes), "", nullptr);
    one.damage(fixture);
    RepairOptions options;
    options.mode = kAll;
    MemoryStore store(fixture.bytes);
    Outcome outcome = Repair(store, options);
    uint8_t bytes[kHeaderLength];
    ASSERT_TRUE(ReadExact(*outcome.plan.overlay, 0, bytes));
    Header mended = ParseHeader(bytes);
    EXPECT_EQ(mended.cluster_bits, sound.cluster_bits) << one.mended;
    EXPECT_EQ(mended.l2_bits, sound.l2_bits) << one.mended;
    EXPECT_EQ(mended.crypt_method, sound.crypt_method) << one.mended;
    disk.resize(std::min(disk.size(), outcome.after.size()));
    outcome.after.resize(disk.size());
    EXPECT_TRUE(outcome.after == disk) << one.mended;
  }
}

TEST(Qcow1Repair, CrossLinkedRangesKeepWhatTheyRead) {
  Fixture fixture = Fixture::Sound();
  fixture.SetEntry(3, 7, fixture.EntryOf(0, 9));
  MemoryStore store(fixture.bytes);
  Outcome outcome = Repair(store, {});
  EXPECT_TRUE(outcome.before == outcome.after);
  MemoryStore limited(fixture.bytes);
  RepairOptions options;
  options.max_copy = 100;
  Outcome refused = Repair(limited, options);
  EXPECT_TRUE(refused.plan.Empty());
  EXPECT_TRUE(refused.plan.Final().findings.Has(Problem::kQcowDataCrosslink));
}

TEST(Qcow1Repair, LostClustersReadAsZerosAlsoOverABackingFile) {
  Fixture fixture = Fixture::Sound();
  fixture.header.backing_file_offset = fixture.Append(AsBytes("base"), 512);
  fixture.header.backing_file_size = 4;
  fixture.WriteHeader();
  fixture.SetEntry(3, 7, 0x2001);
  fixture.SetEntry(3, 8, uint64_t{1} << 24);
  ByteVector base(4 * kMiB, 0x5A);
  RepairOptions options;
  options.mode = kAll;
  MemoryStore store(fixture.bytes);
  Outcome outcome = Repair(store, options, ReaderOf(base));
  uint64_t sector = (3 * fixture.geometry().span + 7 * 4096) / 512;
  EXPECT_FALSE(outcome.before[sector]);
  EXPECT_TRUE(AllZero(*outcome.after[sector]));
  EXPECT_TRUE(AllZero(*outcome.after[sector + 8]));
  EXPECT_EQ((*outcome.after[sector + 16])[0], 0x5A);
  ASSERT_EQ(outcome.plan.lost.size(), 1u);
  EXPECT_EQ(outcome.plan.lost[0].guest, MakeGuestRange(sector * 512, 8192));
}

TEST(Qcow1Repair, EncryptedClustersAreCopiedAsTheyAre) {
  Fixture fixture = Fixture::Sound();
  fixture.header.crypt_method = kCryptAes;
  fixture.SetEntry(0, 2, 0);
  fixture.SetEntry(7, 60, 0);
  fixture.WriteHeader();
  fixture.SetEntry(3, 7, fixture.EntryOf(0, 9));
  MemoryStore store(fixture.bytes);
  RepairOptions options;  // no passphrase needed
  auto plan = MakePlan(store, kFormat, options);
  ASSERT_TRUE(plan);
  EXPECT_EQ(DroppedPasses(*plan), "");
  EXPECT_FALSE(plan->Final().findings.Has(Problem::kQcowDataCrosslink));
  EXPECT_TRUE(ReadDisk(kFormat, store, "key", nullptr) ==
              ReadDisk(kFormat, *plan->overlay, "key", nullptr));
}

TEST(Qcow1Repair, PlaintextStreamsAreEncryptedOnRequest) {
  Fixture fixture = Fixture::Sound();
  fixture.header.crypt_method = kCryptAes;
  fixture.WriteHeader();
  MemoryStore store(fixture.bytes);
  RepairOptions options;
  options.also_fix.insert(Problem::kQcowComprPlaintext);
  options.check.passphrase = "key";
  Outcome outcome = Repair(store, options);
  EXPECT_EQ(DroppedPasses(outcome.plan), "");
  EXPECT_FALSE(outcome.plan.Final().findings.Has(Problem::kQcowComprPlaintext));
  EXPECT_TRUE(outcome.before == outcome.after);
}

TEST(Qcow1Repair, TapdiskTables) {
  Fixture fixture(4 * kMiB);
  fixture.header.l1_table_offset = 4096;
  fixture.bytes.resize(4096 + 128);
  fixture.WriteHeader();
  fixture.AddCluster(2, 3, 0x55);
  fixture.AddCluster(0, 3, 0x56);
  for (uint64_t slot : {0u, 2u}) {
    PutLe<uint64_t>(fixture.bytes, fixture.L1At(slot), fixture.L1(slot));
  }
  EncodeXenHeader({0, 0, 0}, MutableBytes(fixture.bytes).subspan(48));
  MemoryStore store(fixture.bytes);
  Outcome outcome = Repair(store, {});
  EXPECT_EQ(DroppedPasses(outcome.plan), "");
  EXPECT_FALSE(outcome.plan.Final().findings.Has(Problem::kQcowXenL1Endian));
  EXPECT_FALSE(outcome.plan.Final().findings.Has(Problem::kQcowXenCksum));
  EXPECT_TRUE(outcome.before == outcome.after);
}

TEST(Qcow1Repair, RewritingForSmallClustersKeepsTheDisk) {
  Fixture fixture = Fixture::Sound(4 * kMiB - 512);
  fixture.header.backing_file_offset = fixture.Append(AsBytes("base"), 512);
  fixture.header.backing_file_size = 4;
  fixture.WriteHeader();
  ByteVector base = Pattern(8, 4 * kMiB);
  MemoryStore store(fixture.bytes);
  RepairOptions options;
  options.also_fix.insert(Problem::kQcowBackingCluster);
  Outcome outcome = Repair(store, options, ReaderOf(base));
  EXPECT_EQ(DroppedPasses(outcome.plan), "");
  EXPECT_FALSE(outcome.plan.Final().findings.Has(Problem::kQcowBackingCluster));
  EXPECT_TRUE(outcome.before == outcome.after);
}

TEST(Qcow1Repair, OrphansAreHandedOver) {
  Fixture fixture = Fixture::Sound();
  uint64_t table = fixture.L1(3), data = fixture.EntryOf(3, 5);
  fixture.SetL1(3, 0);
  MemoryStore store(fixture.bytes);
  RepairOptions options;
  options.orphans = OrphanPolicy::kDirectory;
  Outcome outcome = Repair(store, options);
  EXPECT_TRUE(outcome.plan.Empty());
  ASSERT_GE(outcome.plan.pieces.size(), 3u);
  EXPECT_EQ(outcome.plan.pieces[0].host, MakeHostRange(table, 512));
  bool found = std::any_of(outcome.plan.pieces.begin(), outcome.plan.pieces.end(),
                           [&](const OrphanPiece& piece) { return piece.host.Contains(data); });
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace imgfsck::qcow1
