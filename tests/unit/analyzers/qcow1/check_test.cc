// SPDX-License-Identifier: Apache-2.0
// Each kind of damage raises its problem and no other.
#include "analyzers/qcow1/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <sstream>

#include "analyzers/qcow1/state.h"
#include "formats/qcow1/xen.h"
#include "io/bad_ranges.h"
#include "tests/unit/formats/qcow1/fixture.h"

namespace imgfsck::qcow1 {
namespace {

struct Checked {
  std::unique_ptr<MemoryStore> store;
  CheckReport report;
};

Checked Check(const Fixture& fixture, bool deep = false, const std::string& path = "") {
  Checked checked;
  checked.store = std::make_unique<MemoryStore>(fixture.bytes);
  CheckOptions options;
  options.deep = deep;
  options.path = path;
  EXPECT_TRUE(kQcow1Checker.run(*checked.store, options, &checked.report));
  return checked;
}

std::vector<std::string> Codes(const CheckReport& report) {
  std::vector<std::string> codes;
  for (const auto& [problem, total] : report.findings.totals()) {
    codes.emplace_back(InfoOf(problem).code);
  }
  return codes;
}

struct Case {
  std::string code;  // of the one problem expected; several are separated by blanks
  std::function<void(Fixture&)> damage;
  bool deep = false;
};

std::vector<Case> Cases() {
  auto field = [](auto change) {
    return [change](Fixture& f) {
      change(f.header);
      f.WriteHeader();
    };
  };
  return {
      {"qcow-magic", field([](Header& h) { h.magic = 0x51464900; })},
      {"qcow-version", field([](Header& h) { h.version = 7; })},
      {"qcow-size-small", field([](Header& h) { h.size = 2; })},
      {"qcow-size-unaligned", field([](Header& h) { h.size -= 100; })},
      {"qcow-size-overflow", field([](Header& h) { h.size = uint64_t{1} << 62; })},
      {"qcow-cluster-bits", field([](Header& h) { h.cluster_bits = 8; })},
      {"qcow-cluster-bits", field([](Header& h) { h.cluster_bits = 17; })},
      {"qcow-l2-bits", field([](Header& h) { h.l2_bits = 5; })},
      {"qcow-l2-bits", field([](Header& h) { h.l2_bits = 14; })},
      {"qcow-padding", field([](Header& h) { h.padding = 0xFFFF; })},
      {"qcow-crypt", field([](Header& h) { h.crypt_method = 2; })},
      {"qcow-l1-offset", field([](Header& h) { h.l1_table_offset = 40; })},
      {"qcow-l1-offset",  // in guest data
       [](Fixture& f) {
         f.header.l1_table_offset = f.EntryOf(0, 9);
         f.WriteHeader();
       }},
      {"qcow-backing-name", field([](Header& h) { h.backing_file_offset = uint64_t{1} << 63; })},
      {"qcow-backing-cluster qcow-backing-name", field([](Header& h) {
         h.backing_file_offset = uint64_t{1} << 30;  // where the file does not reach
         h.backing_file_size = 10;
       })},
      {"qcow-backing-cluster qcow-backing-name", field([](Header& h) {
         h.backing_file_offset = 8;  // in the header
         h.backing_file_size = 16;
       })},
      {"qcow-l1-offset", field([](Header& h) { h.size = uint64_t{1} << 40; })},
      {"qcow-l1-past-eof", field([](Header& h) { h.l1_table_offset = uint64_t{1} << 40; })},
      {"qcow-l1-past-eof",
       [](Fixture& f) {
         f = Fixture(4 * kMiB);
         f.bytes.resize(64 + 40);
       }},
      {"qcow-l1-entry-flag", [](Fixture& f) { f.SetL1(9, kTopBit | 4096); }},
      {"qcow-l1-entry-unaligned qcow-waste",
       [](Fixture& f) {  // the same table, moved by a sector and by a byte
         for (uint64_t by : {uint64_t{512}, uint64_t{1}}) {
           ByteVector table(f.bytes.begin() + static_cast<long>(f.L1(3)),
                            f.bytes.begin() + static_cast<long>(f.L1(3) + 512));
           table.insert(table.begin(), by, 0x11);
           f.SetL1(3, f.Append(table, 4096) + by);
         }
       }},
      {"qcow-l1-entry-past-eof", [](Fixture& f) { f.SetL1(9, uint64_t{1} << 30); }},
      {"qcow-l2-short",
       [](Fixture& f) {
         f.AddTable(11);
         f.bytes.resize(f.bytes.size() - 100);
       }},
      {"qcow-l1-entry-duplicate", [](Fixture& f) { f.SetL1(12, f.L1(3)); }},
      {"qcow-l2-implausible",
       [](Fixture& f) {
         f.AddTable(11);
         for (uint64_t i = 0; i < 40; ++i) f.SetEntry(11, i, 0x7A7B3C4D5E6F7081 - i);
       }},
      {"qcow-l2-entry-unaligned", [](Fixture& f) { f.SetEntry(3, 7, 0x2001); }},
      {"qcow-l2-entry-past-eof", [](Fixture& f) { f.SetEntry(3, 7, uint64_t{1} << 24); }},
      {"qcow-cluster-short", [](Fixture& f) { f.bytes.resize(f.bytes.size() - 1); }},
      {"qcow-data-crosslink", [](Fixture& f) { f.SetEntry(3, 7, f.EntryOf(0, 9)); }},
      {"qcow-data-on-metadata", [](Fixture& f) { f.SetEntry(3, 7, f.L1(0)); }},
      {"qcow-meta-overlap",
       [](Fixture& f) {
         f = Fixture(kMiB, 9, 7);  // tables of two clusters
         f.SetL1(3, f.Append(ByteVector(1536), 512));
         f.SetL1(1, f.L1(3) + 512);
       }},
      {"qcow-compr-size",
       [](Fixture& f) { f.SetEntry(3, 7, Entry::Compressed(f.geometry(), 4096, 0).raw); }},
      {"qcow-compr-past-eof",
       [](Fixture& f) {
         f.bytes.resize(f.bytes.size() + 10);
         f.SetEntry(3, 7, Entry::Compressed(f.geometry(), f.bytes.size() - 10, 11).raw);
       }},
      {"qcow-compr-undecodable",
       [](Fixture& f) {
         Entry entry{f.EntryOf(0, 2)};
         std::fill_n(f.bytes.begin() + static_cast<long>(entry.offset(f.geometry())),
                     entry.length(f.geometry()), uint8_t{0xFF});
       },
       true},
      {"qcow-compr-overlap", [](Fixture& f) { f.SetEntry(3, 7, f.EntryOf(0, 2)); }},
      {"qcow-compr-overlap",  // a stream inside a table
       [](Fixture& f) { f.SetEntry(3, 7, Entry::Compressed(f.geometry(), f.L1(7) + 9, 50).raw); }},
      {"qcow-compr-plaintext", field([](Header& h) { h.crypt_method = 1; })},
      {"qcow-past-size",
       [](Fixture& f) {
         f.header.size -= 12 * 4096;  // the last span is cut
         f.WriteHeader();
         f.AddCluster(15, 52, 1);
       }},
      {"qcow-waste", [](Fixture& f) { f.Append(ByteVector(5000, 0x44), 4096); }},
      {"qcow-backing-name qcow-backing-cluster", field([](Header& h) {
         h.backing_file_offset = 48;
         h.backing_file_size = 1024;
         h.cluster_bits = 12;
       })},
      {"qcow-mtime", field([](Header& h) { h.mtime = 77; })},
      {"qcow-waste qcow-l2-orphan", [](Fixture& f) { f.SetL1(3, 0); }},
  };
}

TEST(Qcow1Check, ASoundImageRaisesNothing) {
  Checked checked = Check(Fixture::Sound(), true);
  EXPECT_THAT(Codes(checked.report), testing::IsEmpty());
  EXPECT_EQ(checked.report.counts.allocated_clusters, 7u);
  EXPECT_EQ(checked.report.counts.compressed_clusters, 2u);
  EXPECT_EQ(checked.report.counts.total_clusters, 1024u);
  EXPECT_EQ(checked.report.counts.image_end_offset, checked.store->Size());
}

TEST(Qcow1Check, EveryDamageRaisesItsProblem) {
  for (const Case& one : Cases()) {
    Fixture fixture = Fixture::Sound();
    one.damage(fixture);
    Checked checked = Check(fixture, one.deep);
    std::vector<std::string> codes = Codes(checked.report), expected;
    std::istringstream words(one.code);
    for (std::string word; words >> word;) expected.push_back(word);
    // Damage that hides structures leaves their bytes as waste; that is not the point here.
    std::erase_if(codes, [&](const std::string& code) {
      return (code == "qcow-waste" || code == "qcow-l2-orphan") &&
             std::find(expected.begin(), expected.end(), code) == expected.end();
    });
    EXPECT_THAT(codes, testing::UnorderedElementsAreArray(expected)) << one.code;
  }
}

TEST(Qcow1Check, BothClaimantsOfACrossLinkAreNamed) {
  Fixture fixture = Fixture::Sound();
  fixture.SetEntry(3, 7, fixture.EntryOf(0, 9));
  Checked checked = Check(fixture);
  ASSERT_EQ(checked.report.findings.kept().size(), 1u);
  const Finding& f = checked.report.findings.kept()[0];
  uint64_t span = fixture.geometry().span;
  EXPECT_EQ(f.guest, MakeGuestRange(3 * span + 7 * 4096, 4096));
  ASSERT_EQ(f.also.size(), 1u);
  EXPECT_EQ(f.also[0].guest, MakeGuestRange(9 * 4096, 4096));
  EXPECT_EQ(f.host, MakeHostRange(fixture.EntryOf(0, 9), 4096));
}

TEST(Qcow1Check, AlignmentDecidesTheSeverity) {
  Fixture fixture = Fixture::Sound();
  uint64_t at = fixture.Append(ByteVector(4096 + 512, 0x10), 4096);
  fixture.SetEntry(3, 7, at + 512);
  Checked checked = Check(fixture);
  EXPECT_EQ(checked.report.findings.Units(Severity::kWarning), 1u);
  EXPECT_EQ(checked.report.findings.Units(Severity::kCorruption), 0u);
}

TEST(Qcow1Check, WhatTheMediumDoesNotGiveIsSaid) {
  Fixture fixture;
  fixture.AddCluster(3, 7, 0x21);
  const MemoryStore medium(fixture.bytes);
  const BadRangeSource bad(medium, {MakeHostRange(AlignDown(fixture.L1(3), 512), 512)});
  CheckReport report;
  EXPECT_TRUE(kQcow1Checker.run(bad, {}, &report));
  EXPECT_TRUE(report.findings.Has(Problem::kImageUnreadable));
  EXPECT_GT(report.counts.check_errors, 0u);
}

TEST(Qcow1Check, AMissingBackingFileIsAWarning) {
  Fixture fixture = Fixture::Sound();
  uint64_t at = fixture.Append(AsBytes("no-such-base.img"), 512);
  fixture.header.backing_file_offset = at;
  fixture.header.backing_file_size = 16;
  fixture.WriteHeader();
  Checked checked = Check(fixture, false, testing::TempDir() + "overlay.img");
  EXPECT_THAT(Codes(checked.report),
              testing::UnorderedElementsAre("qcow-backing-missing", "qcow-backing-cluster"));
  EXPECT_TRUE(Check(fixture).report.findings.Has(Problem::kQcowBackingCluster));
  EXPECT_FALSE(Check(fixture).report.findings.Has(Problem::kQcowBackingMissing));
}

TEST(Qcow1Check, TapdiskImages) {
  for (bool little : {false, true}) {
    Fixture fixture(4 * kMiB);
    fixture.header.l1_table_offset = 4096;
    fixture.bytes.resize(4096 + 128);
    fixture.WriteHeader();
    fixture.AddCluster(2, 3, 0x55);
    fixture.AddCluster(0, 3, 0x56);
    for (uint64_t slot : {uint64_t{0}, uint64_t{2}}) {
      if (little) PutLe<uint64_t>(fixture.bytes, fixture.L1At(slot), fixture.L1(slot));
    }
    auto checksum = XenChecksum(MemoryStore(fixture.bytes), fixture.geometry(), 4096, little);
    ASSERT_TRUE(checksum);
    XenHeader xen{*checksum, 0, little ? 0 : kXenBigEndianL1};
    EncodeXenHeader(xen, MutableBytes(fixture.bytes).subspan(48));
    std::vector<std::string> expected{"qcow-xen-header"};
    if (little) expected.emplace_back("qcow-xen-l1-endian");
    EXPECT_THAT(Codes(Check(fixture).report), testing::UnorderedElementsAreArray(expected));
    fixture.bytes[52] ^= 1;
    EXPECT_TRUE(Check(fixture).report.findings.Has(Problem::kQcowXenCksum));
  }
}

TEST(Qcow1Check, SharedTablesDoNotCostTimeOrRepeatFindings) {
  Fixture fixture(uint64_t{1} << 32, 9, 13);  // 1024 L1 entries
  fixture.AddCluster(0, 1, 7);
  for (uint64_t slot = 1; slot < fixture.geometry().l1_entries; ++slot) {
    fixture.SetL1(slot, fixture.L1(0));
  }
  Checked checked = Check(fixture);
  EXPECT_EQ(checked.report.findings.Units(Problem::kQcowL1EntryDuplicate), 1023u);
  EXPECT_FALSE(checked.report.findings.Has(Problem::kQcowDataCrosslink));
}

TEST(Qcow1Check, OverlappingTablesAreCutShort) {
  Fixture fixture(uint64_t{1} << 36, 9, 13);
  ASSERT_EQ(fixture.geometry().l1_entries, 16384u);
  uint64_t at = fixture.Append(ByteVector(512 * 16384), 512);
  for (uint64_t slot = 0; slot < 16384; ++slot) fixture.SetL1(slot, at + 512 * slot);
  Checked checked = Check(fixture);
  EXPECT_TRUE(checked.report.findings.Has(Problem::kImageTooManyOverlaps));
}

TEST(RangeUnion, FindsWhatIsAddedTwice) {
  RangeUnion spans;
  spans.Add(10, 20);
  spans.Add(30, 40);
  spans.Add(20, 30);
  spans.Add(15, 16);
  spans.Add(50, 60);
  spans.Add(38, 52);
  spans.Add(7, 7);
  spans.Finish();
  EXPECT_THAT(spans.covered(), testing::ElementsAre(Span{10, 60}));
  EXPECT_THAT(spans.repeated(), testing::ElementsAre(Span{15, 16}, Span{38, 40}, Span{50, 52}));
  EXPECT_TRUE(spans.Covers(59, 100));
  EXPECT_FALSE(spans.Covers(60, 100));
  EXPECT_FALSE(spans.Covers(0, 10));
}

}  // namespace
}  // namespace imgfsck::qcow1
