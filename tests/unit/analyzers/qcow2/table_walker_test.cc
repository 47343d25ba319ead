// SPDX-License-Identifier: Apache-2.0
// Whatever is taken 64 entries at a time comes out as if every entry had been looked at on its own:
// counts, conflicts, findings, of random columns in which most is in order and shared.
#include "analyzers/qcow2/table_walker.h"

#include <gtest/gtest.h>

#include <random>

#include "formats/qcow2/format.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kCluster = 2048, kEntries = kCluster / 8, kClusters = 4096;
constexpr size_t kSnapshots = 5;

// A disk that ends in the middle of its third column, and snapshots of it, one of a smaller disk.
ByteVector MakeFile() {
  MemoryStore store;
  const uint64_t size = 2 * kEntries * kCluster + kEntries / 2 * kCluster + 512;
  EXPECT_TRUE(kQcow2Format.create(store, size - kEntries * kCluster, {{"cluster_size", "2k"}}));
  OpenOptions options;
  options.writable = true;
  auto driver = kQcow2Format.open(store, &store, options);
  EXPECT_TRUE((*driver)->SnapshotCreate("0"));
  EXPECT_TRUE((*driver)->Resize(size));
  for (size_t i = 1; i < kSnapshots; ++i) {
    EXPECT_TRUE((*driver)->SnapshotCreate(std::to_string(i)));
  }
  EXPECT_TRUE((*driver)->Close());
  ByteVector bytes = store.bytes();
  bytes.resize(kClusters * kCluster);
  return bytes;
}

struct Column {
  std::vector<TableRef> tables;
  std::vector<ByteVector> contents;
};

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  Column Make() {
    Column column;
    const bool scattered = Chance(2), active = !Chance(4);
    ByteVector shared(kCluster);
    uint64_t next = 64 + Random(kClusters - 64 - kEntries);
    for (uint64_t i = 0; i < kEntries; ++i) {
      StoreBe(&shared[8 * i], (scattered ? 64 + Random(kClusters - 64) : next + i) * kCluster);
    }
    if (Chance(3)) Disturb(shared, Random(6));
    const uint64_t index = Random(3), tables = 1 + Random(kSnapshots);
    for (uint64_t k = 0; k < tables; ++k) {
      TableRef table;
      table.offset = (8 + k) * kCluster;
      table.column = index;
      table.layer = static_cast<uint32_t>(active ? k : k + 1);
      table.active = active && k == 0;
      table.weight = 1 + static_cast<uint32_t>(Random(3) == 0 ? Random(300) : 0);
      ByteVector content = shared;
      if (!Chance(3)) Disturb(content, Random(8));
      if (Chance(6)) SetCopied(content);  // stale, or the table is nobody else's
      column.tables.push_back(table);
      column.contents.push_back(std::move(content));
    }
    return column;
  }

 private:
  uint64_t Random(uint64_t below) { return random_() % below; }
  bool Chance(uint64_t one_in) { return Random(one_in) == 0; }

  void SetCopied(ByteVector& table) {
    for (uint64_t i = 0; i < kEntries; ++i) Change(table, i, kCopied, 0);
  }
  static void Change(ByteVector& table, uint64_t i, uint64_t set, uint64_t clear) {
    StoreBe(&table[8 * i], (LoadBe<uint64_t>(&table[8 * i]) & ~clear) | set);
  }
  void Disturb(ByteVector& table, uint64_t times) {
    for (uint64_t n = 0; n < times; ++n) {
      const uint64_t i = Random(kEntries), own = (64 + Random(kClusters - 64)) * kCluster;
      switch (Random(9)) {
        case 0:
          Change(table, i, own | kCopied, ~uint64_t{0});
          break;  // written since
        case 1:
          Change(table, i, own, ~uint64_t{0});
          break;
        case 2:
          Change(table, i, kCopied, 0);
          break;
        case 3:
          Change(table, i, kZeroFlag, 0);
          break;
        case 4:
          Change(table, i, 0, ~uint64_t{0});
          break;  // not allocated
        case 5:
          Change(table, i, uint64_t{1} << 58, 0);
          break;  // reserved
        case 6:
          Change(table, i, kClusters * kCluster, 0);
          break;  // past the end
        case 7:
          Change(table, i, kCompressed | (own + 77), ~uint64_t{0});
          break;
        default:
          std::fill_n(table.begin() + static_cast<ptrdiff_t>(8 * (i / 64 * 64)), 512, uint8_t{0});
      }
    }
  }
  std::mt19937_64 random_;
};

struct Outcome {
  ClaimMap claims;
  CheckCounts counts;
  Findings findings;
  size_t implausible = 0, empty = 0;
};

Outcome Walk(const Image& image, const std::vector<Column>& columns, bool groups) {
  Outcome outcome{*ClaimMap::Make(kClusters), {}, Findings(), 0, 0};
  TableWalker walker(image, &outcome.claims, groups);
  walker.findings = &outcome.findings;
  for (const Column& column : columns) {
    const std::vector<Bytes> bytes(column.contents.begin(), column.contents.end());
    if (column.tables.size() == 1) {
      walker.WalkSingle(column.tables[0], bytes[0]);
    } else {
      walker.WalkColumn(column.tables, bytes);
    }
  }
  outcome.counts = walker.counts;
  outcome.implausible = walker.implausible.size();
  outcome.empty = walker.empty_tables.size();
  return outcome;
}

std::string Text(const Findings& findings) {
  std::string text;
  for (const Finding& f : findings.kept()) {
    text += std::string(f.info().code) + " " + f.structure + " " + f.detail + " x" +
            std::to_string(f.count) + "\n";
  }
  return text;
}

void ExpectSame(const Outcome& fast, const Outcome& slow) {
  EXPECT_EQ(Text(fast.findings), Text(slow.findings));
  EXPECT_EQ(fast.counts.allocated_clusters, slow.counts.allocated_clusters);
  EXPECT_EQ(fast.counts.fragmented_clusters, slow.counts.fragmented_clusters);
  EXPECT_EQ(fast.counts.compressed_clusters, slow.counts.compressed_clusters);
  EXPECT_EQ(fast.implausible, slow.implausible);
  EXPECT_EQ(fast.empty, slow.empty);
  for (uint64_t c = 0; c < kClusters; ++c) {
    ASSERT_EQ(fast.claims.Count(c), slow.claims.Count(c)) << "cluster " << c;
    ASSERT_EQ(fast.claims.IsConflict(c), slow.claims.IsConflict(c)) << "cluster " << c;
  }
}

TEST(TableWalker, GroupsOfEntriesAreSoManyEntries) {
  const ByteVector file = MakeFile();
  const MemoryStore store(file);
  auto image = ParseImage(store);
  ASSERT_TRUE(image);
  ASSERT_EQ((*image)->LayerCount(), 1 + kSnapshots);
  uint64_t findings = 0, shared = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Maker maker(seed);
    std::vector<Column> columns;
    for (int i = 0; i < 3; ++i) columns.push_back(maker.Make());
    const Outcome fast = Walk(**image, columns, true), slow = Walk(**image, columns, false);
    ExpectSame(fast, slow);
    if (testing::Test::HasFailure()) return;
    findings += slow.findings.kept().size();
    shared += columns[0].tables.size() > 1;
  }
  EXPECT_GT(findings, 100u);  // the columns are not all sound
  EXPECT_GT(shared, 100u);
}

TEST(ClaimMap, MergesManyReferences) {
  // Two threads' counts together are those of one, whatever goes beyond a byte.
  std::mt19937_64 random(3);
  auto both = ClaimMap::Make(kClusters), left = ClaimMap::Make(kClusters),
       right = ClaimMap::Make(kClusters);
  ASSERT_TRUE(both && left && right);
  for (int i = 0; i < 3000; ++i) {
    const uint64_t cluster = random() % (kClusters - 64);
    const uint64_t weight = 1 + (random() % 8 == 0 ? random() % 300 : random() % 3);
    ClaimMap& one = random() % 2 == 0 ? *left : *right;
    if (random() % 20 == 0) {
      both->ClaimDataRun64(cluster, weight);
      one.ClaimDataRun64(cluster, weight);
    } else {
      both->ClaimData(cluster, weight);
      one.ClaimData(cluster, weight);
    }
  }
  left->Merge(*right);
  for (uint64_t c = 0; c < kClusters; ++c) {
    ASSERT_EQ(both->Count(c), left->Count(c)) << "cluster " << c;
    ASSERT_EQ(both->IsConflict(c), left->IsConflict(c)) << "cluster " << c;
  }
}

}  // namespace
}  // namespace imgfsck::qcow2
