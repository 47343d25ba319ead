// SPDX-License-Identifier: Apache-2.0
// An image with something in every table, hostile texts and numbers included.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "model/live_model.h"
#include "tests/unit/fake_rows.h"

namespace imgfsck {

inline constexpr uint64_t kHuge = uint64_t{1} << 63;

class ModelTest : public testing::Test {
 protected:
  ModelTest() {
    rows_.image = {.path = "it's.qcow2",
                   .format = "qcow2",
                   .version = "3",
                   .virtual_size = 0x500000,
                   .file_size = 0x900000,
                   .cluster_size = 0x10000,
                   .allocated = 0x800000};
    rows_.fields = {
        {"header", "magic", 0, 4, 0x514649fb, "514649fb", "QFI"},
        {"header", "l1_table_offset", 40, 8, std::nullopt, "8000000000000000", ""},
    };
    SnapshotRow snapshot;
    snapshot.id = "1";
    snapshot.name = std::string("a'b\0c\n.quit\n\xff\x1b[2J;", 18);
    snapshot.host_offset = 0x30000;
    snapshot.l1_offset = kHuge;
    snapshot.date_seconds = -5;
    rows_.snapshots = {snapshot};
    BitmapRow bitmap;
    bitmap.name = "backup";
    bitmap.granularity = 65536;
    bitmap.enabled = true;
    rows_.bitmaps = {bitmap};
    rows_.bitmap_ranges = {{"backup", 0, 0x10000}, {"backup", 0x40000, 0x20000}};
    rows_.links = {{"backing", "../base.qcow2", "", 0x200, 13}};
    rows_.layers = {"active", "1"};
    FillMappings();
    rows_.regions = {
        {0, 0x10000, "header", "", std::nullopt},
        {0x10000, 0x10000, "l1", "active", std::nullopt},
        {0x100000, 0x100000, "data", "active", 0},
        {0x200000, 0x800, "compressed", "active", 0x180000},
        {0x100000, 0x80000, "data", "1", 0},
    };
    FillFindings();
    source_.rows = &rows_;
    source_.findings = [this]() -> Result<const Findings*> {
      ++checks_;
      return &findings_;
    };
    source_.refcounts = [](const RowQuery&) -> Result<std::unique_ptr<RowCursor<RefcountRow>>> {
      std::vector<RefcountRow> runs = {
          {0, 0x20000, 1, 1}, {0x300000, 0x10000, 2, 1}, {0x310000, 0x10000, kHuge + 1, 0}};
      return {std::make_unique<VectorCursor<RefcountRow>>(runs)};
    };
  }

  void FillMappings() {
    rows_.mappings = {
        {"active", 0, 0x100000, MappingState::kData, 0x100000, std::nullopt, kMappingCopied},
        {"active", 0x100000, 0x80000, MappingState::kZero, std::nullopt, std::nullopt, 0},
        {"active", 0x180000, 0x10000, MappingState::kCompressed, 0x200000, 0x800, 0},
        {"active", 0x190000, 0x10000, MappingState::kCompressed, 0x200800, 0x900, 0},
        {"active", 0x1a0000, 0x160000, MappingState::kUnallocated, std::nullopt, std::nullopt, 0},
        {"active", 0x300000, 0x200000, MappingState::kData, kHuge, std::nullopt, kMappingPastEnd},
        {"1", 0, 0x80000, MappingState::kData, 0x100000, std::nullopt, 0},
        {"1", 0x80000, 0x480000, MappingState::kUnallocated, std::nullopt, std::nullopt, 0},
    };
  }

  void FillFindings() {
    Finding overlap;
    overlap.problem = AllProblems().front().problem;
    overlap.structure = "l2[0]";
    overlap.host = MakeHostRange(0x100000, 0x10000);
    overlap.guest = MakeGuestRange(0, 0x10000);
    overlap.layer = "active";
    overlap.severity = Severity::kCorruption;
    overlap.detail = "said \"twice\"";
    overlap.also = {{"1", MakeGuestRange(0, 0x10000), "l2[1]"}, {"", std::nullopt, "l1"}};
    findings_.Add(overlap);
    Finding leak;
    leak.problem = AllProblems().front().problem;
    leak.structure = "refcount-block[0]";
    leak.host = MakeHostRange(0x300000, 0x20000);
    leak.severity = Severity::kLeak;
    leak.count = 2;
    leak.confidence = 0.5;
    leak.evidence = "looks old";
    leak.fixed = true;
    findings_.Add(leak);
  }

  FakeRows rows_;
  Findings findings_;
  int checks_ = 0;
  ModelSource source_;
};

}  // namespace imgfsck
