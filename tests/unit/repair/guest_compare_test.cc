// SPDX-License-Identifier: Apache-2.0
// The comparison of what guests read before and after, mapping by mapping.
#include "repair/guest_compare.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/fake_rows.h"

namespace imgfsck {
namespace {

constexpr uint64_t kCluster = 1024;  // bytes
constexpr std::string_view kSnapshot = "1";

MappingRow Row(uint64_t guest, MappingState state, std::optional<uint64_t> host = {},
               uint32_t flags = 0, std::string_view layer = kActiveLayer) {
  return {layer, guest * kCluster, kCluster, state, host, {}, flags};
}
MappingRow Data(uint64_t guest, uint64_t host, std::string_view layer = kActiveLayer) {
  return Row(guest, MappingState::kData, host * kCluster, 0, layer);
}

// One side: rows over bytes in which cluster n is filled with n.
struct Side {
  CheckReport report;
  FakeRows* rows;
  MemoryStore bytes;

  explicit Side(std::vector<MappingRow> mappings) {
    static const Format format{"fake", {}, "", nullptr, nullptr, nullptr, nullptr, {}};
    report.format = &format;
    auto owned = std::make_unique<FakeRows>();
    rows = owned.get();
    rows->mappings = std::move(mappings);
    report.rows = std::move(owned);
    ByteVector content(16 * kCluster);
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i / kCluster);
    bytes = MemoryStore(std::move(content));
  }
};

std::vector<LayerRange> Compare(Side& before, Side& after) {
  RangeSet patched;
  const ByteVector& a = before.bytes.bytes();
  const ByteVector& b = after.bytes.bytes();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i] != b[i]) patched.Add(i, 1);
  }
  auto changed = CompareGuests({before.report, before.bytes}, {after.report, after.bytes},
                               std::move(patched), {});
  EXPECT_TRUE(changed) << changed.error().message;
  return changed ? std::move(*changed) : std::vector<LayerRange>();
}

LayerRange Changed(uint64_t offset, uint64_t length, std::string_view layer = kActiveLayer) {
  return {std::string(layer), MakeGuestRange(offset, length)};
}

using Ranges = std::vector<LayerRange>;

TEST(GuestCompare, EqualMappingsOfEqualBytesAreEqual) {
  Side before({Data(0, 4), Data(1, 5)}), after({Data(0, 4), Data(1, 5)});
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, MovedBytesAreEqual) {
  Side before({Data(0, 4), Data(1, 5)}), after({Data(0, 9), Data(1, 5)});
  std::fill_n(after.bytes.bytes().begin() + 9 * kCluster, kCluster, uint8_t{4});
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, OtherBytesAreFoundToTheSector) {
  Side before({Data(0, 4), Data(1, 5)}), after({Data(0, 4), Data(1, 5)});
  after.bytes.bytes()[5 * kCluster + 700] = 0xff;
  EXPECT_EQ(Compare(before, after), Ranges{Changed(kCluster + 512, 512)});
}

TEST(GuestCompare, PatchesOutsideTheDataDoNotMatter) {
  Side before({Data(0, 4)}), after({Data(0, 4)});
  after.bytes.bytes()[5 * kCluster] = 0xff;
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, ZerosAndUnallocatedAreTheSameWithoutABackingFile) {
  Side before({Row(0, MappingState::kZero), Row(1, MappingState::kUnallocated), Data(2, 0)});
  Side after({Row(0, MappingState::kUnallocated), Row(1, MappingState::kZero),
              Row(2, MappingState::kUnallocated)});
  EXPECT_EQ(Compare(before, after), Ranges{}) << "cluster 0 of the file holds zeros";
  for (Side* side : {&before, &after}) side->rows->links = {{"backing", "base", "", 0, 0}};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, 3 * kCluster)});
}

TEST(GuestCompare, AnotherBackingFileChangesWhatIsUnallocated) {
  Side before({Row(0, MappingState::kUnallocated), Data(1, 4)});
  Side after({Row(0, MappingState::kUnallocated), Data(1, 4)});
  before.rows->links = {{"backing", "base", "", 0, 0}};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster)});
}

TEST(GuestCompare, DataThatBecomesUnallocatedIsLost) {
  Side before({Data(0, 4), Data(1, 5)}), after({Data(0, 4), Row(1, MappingState::kUnallocated)});
  EXPECT_EQ(Compare(before, after), Ranges{Changed(kCluster, kCluster)});
  Side gap({Data(0, 4)});  // the row is missing altogether
  EXPECT_EQ(Compare(before, gap), Ranges{Changed(kCluster, kCluster)});
}

TEST(GuestCompare, DamagedEntriesCouldNotBeRead) {
  Side before({Row(0, MappingState::kData, 4 * kCluster, kMappingDamaged), Data(1, 5)});
  Side after({Row(0, MappingState::kUnallocated), Data(1, 5)});
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, WhatReadsAsZerosPastTheEndIsReadable) {
  Side before({Data(0, 20)}), after({Data(0, 4)});
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster)});
  Side zero({Row(0, MappingState::kZero)});
  EXPECT_EQ(Compare(before, zero), Ranges{});
}

TEST(GuestCompare, RowsMayBeCutDifferently) {
  Side before({Data(0, 4), Data(1, 5), Data(2, 6)});
  Side after({{kActiveLayer, 0, 3 * kCluster, MappingState::kData, 4 * kCluster, {}, 0}});
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, SnapshotsAreCompared) {
  Side before({Data(0, 4), Data(0, 5, kSnapshot)}), after({Data(0, 4), Data(0, 6, kSnapshot)});
  for (Side* side : {&before, &after}) side->rows->layers = {"active", "1"};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster, "1")});
}

TEST(GuestCompare, ASnapshotThatGoesIsLostAndOneThatComesIsNot) {
  Side before({Data(0, 4), Data(0, 5, kSnapshot)}), after({Data(0, 4)});
  before.rows->layers = {"active", "1"};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster, "1")});
  EXPECT_EQ(Compare(after, before), Ranges{});
}

TEST(GuestCompare, ARenamedSnapshotIsTheSame) {
  Side before({Data(0, 4), Data(0, 5, kSnapshot)}), after({Data(0, 4), Data(0, 5, "7")});
  before.rows->layers = {"active", "1"};
  after.rows->layers = {"active", "7"};
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, TwoSnapshotsOfOneIdAreComparedInTurn) {
  Side before({Data(0, 4, kSnapshot), Data(1, 5, kSnapshot), Data(0, 6, kSnapshot)});
  Side after({Data(0, 4, kSnapshot), Data(1, 5, kSnapshot), Data(0, 7, kSnapshot)});
  for (Side* side : {&before, &after}) side->rows->layers = {"1", "1"};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster, "1")});
  // The first one lost its end: the second is still compared with the second.
  Side shorter({Data(0, 4, kSnapshot), Data(0, 6, kSnapshot)});
  shorter.rows->layers = {"1", "1"};
  EXPECT_EQ(Compare(before, shorter), Ranges{Changed(kCluster, kCluster, "1")});
}

TEST(GuestCompare, EqualCompressedBytesAreEqualWhereverTheyAre) {
  MappingRow old_row = Row(0, MappingState::kCompressed, 4 * kCluster);
  old_row.host_length = 100;
  MappingRow new_row = old_row;
  new_row.host_offset = 9 * kCluster;
  Side before({old_row}), after({new_row});
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster)}) << "nobody can decode them";
  std::fill_n(after.bytes.bytes().begin() + 9 * kCluster, 100, uint8_t{4});
  EXPECT_EQ(Compare(before, after), Ranges{});
}

TEST(GuestCompare, DataEncryptedByItsPlaceMustNotMove) {
  Side before({Data(0, 4)}), after({Data(0, 9)});
  std::fill_n(after.bytes.bytes().begin() + 9 * kCluster, kCluster, uint8_t{4});
  for (Side* side : {&before, &after}) side->rows->structures = {{"luks", MakeHostRange(0, 512)}};
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster)});
}

TEST(GuestCompare, AnotherPlaceInTheDataFileIsAChange) {
  MappingRow old_row = Data(0, 4);
  old_row.flags = kMappingDataFile;
  MappingRow new_row = old_row;
  Side before({old_row}), same({new_row});
  EXPECT_EQ(Compare(before, same), Ranges{});
  new_row.host_offset = 0;
  Side after({new_row});
  EXPECT_EQ(Compare(before, after), Ranges{Changed(0, kCluster)});
}

}  // namespace
}  // namespace imgfsck
