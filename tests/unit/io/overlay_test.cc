// SPDX-License-Identifier: Apache-2.0
#include "io/overlay.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "temp_dir.h"
#include "tests/unit/bytes.h"

namespace imgfsck {
namespace {

ByteVector ReadPastEnd(const ByteSource& source) {
  ByteVector bytes(source.Size() + 10, 0xEE);
  auto got = source.ReadAt(0, bytes);
  EXPECT_TRUE(got);
  EXPECT_EQ(*got, source.Size());
  bytes.resize(got.value_or(0));
  return bytes;
}

struct Patch {
  uint64_t offset;
  ByteVector old_bytes, new_bytes;
};

std::vector<Patch> Patches(const Overlay& overlay) {
  std::vector<Patch> patches;
  auto status = overlay.ForEachPatch([&](uint64_t offset, Bytes o, Bytes n) {
    patches.push_back({offset, {o.begin(), o.end()}, {n.begin(), n.end()}});
    return Ok();
  });
  EXPECT_TRUE(status);
  return patches;
}

// Base + patches + size must be the overlay, and the old bytes what the base has.
void ExpectPatchesRebuild(const MemoryStore& base, const Overlay& overlay) {
  MemoryStore rebuilt(base.bytes());
  ASSERT_TRUE(rebuilt.SetSize(overlay.Size()));
  uint64_t last_end = 0;
  bool last_was_full = true;
  for (const Patch& patch : Patches(overlay)) {
    ASSERT_FALSE(patch.new_bytes.empty());
    ASSERT_LE(patch.new_bytes.size(), kMiB);
    if (!last_was_full) {
      ASSERT_GT(patch.offset, last_end);
    }
    ASSERT_GE(patch.offset, last_end);
    ASSERT_NE(patch.new_bytes.front(), patch.old_bytes.empty() ? 0 : patch.old_bytes.front());
    last_end = patch.offset + patch.new_bytes.size();
    last_was_full = patch.new_bytes.size() == kMiB;
    ASSERT_LE(last_end, overlay.Size());
    ByteVector old_bytes(patch.new_bytes.size());
    auto got = base.ReadAt(patch.offset, old_bytes);
    ASSERT_TRUE(got);
    old_bytes.resize(*got);
    ASSERT_EQ(old_bytes, patch.old_bytes);
    ASSERT_TRUE(rebuilt.WriteAt(patch.offset, patch.new_bytes));
  }
  EXPECT_EQ(rebuilt.bytes(), ReadPastEnd(overlay));
}

TEST(Overlay, LeavesTheBaseAlone) {
  MemoryStore base(Noise(10000, 1));
  const ByteVector before = base.bytes();
  Overlay overlay(base);
  EXPECT_FALSE(overlay.Changed());
  EXPECT_TRUE(Patches(overlay).empty());
  ASSERT_TRUE(overlay.WriteAt(4090, AsBytes("0123456789abc")));
  EXPECT_TRUE(overlay.Changed());
  EXPECT_EQ(overlay.PagesHeld(), 2u);
  EXPECT_EQ(base.bytes(), before);
  ByteVector expected = before;
  std::ranges::copy(std::string_view("0123456789abc"), expected.begin() + 4090);
  EXPECT_EQ(ReadPastEnd(overlay), expected);
}

TEST(Overlay, APatchHasOnlyWhatDiffers) {
  MemoryStore base(ByteVector(20000, 5));
  Overlay overlay(base);
  ByteVector page(8192, 5);
  page[100] = 6;
  page[163] = 6;                // 62 equal bytes between: one patch
  page[163 + 65] = 6;           // 64 equal bytes between: another
  page[4095] = page[4096] = 7;  // over a page's edge: one patch
  ASSERT_TRUE(overlay.WriteAt(4096, page));
  const auto patches = Patches(overlay);
  ASSERT_EQ(patches.size(), 3u);
  EXPECT_EQ(patches[0].offset, 4196u);
  EXPECT_EQ(patches[0].new_bytes.size(), 64u);
  EXPECT_EQ(patches[1].offset, 4096u + 228);
  EXPECT_EQ(patches[1].new_bytes, ByteVector{6});
  EXPECT_EQ(patches[1].old_bytes, ByteVector{5});
  EXPECT_EQ(patches[2].offset, 4096u + 4095);
  EXPECT_EQ(patches[2].new_bytes, (ByteVector{7, 7}));
  EXPECT_EQ(overlay.TouchedRanges(), std::vector{MakeHostRange(4096, 8192)});
}

TEST(Overlay, WritingTheSameBytesIsNoPatch) {
  MemoryStore base(Noise(9000, 2));
  Overlay overlay(base);
  ASSERT_TRUE(overlay.WriteAt(0, base.bytes()));
  EXPECT_TRUE(Patches(overlay).empty());
}

TEST(Overlay, LongPatchesAreSplitAtAMebibyte) {
  MemoryStore base(ByteVector(3 * kMiB, 0));
  Overlay overlay(base);
  ASSERT_TRUE(overlay.WriteAt(1000, ByteVector(2 * kMiB + 1, 9)));
  const auto patches = Patches(overlay);
  ASSERT_EQ(patches.size(), 3u);
  EXPECT_EQ(patches[0].offset, 1000u);
  EXPECT_EQ(patches[0].new_bytes.size(), kMiB);
  EXPECT_EQ(patches[2].new_bytes.size(), 1u);
  ExpectPatchesRebuild(base, overlay);
}

TEST(Overlay, APatchAcrossAWindowIsOne) {
  MemoryStore base(ByteVector(3 * kMiB, 1));
  Overlay overlay(base);
  ByteVector content(2 * kMiB, 1);
  content[5] = 2;
  for (size_t i = kMiB - 10; i < kMiB + 10; ++i) content[i] = 3;
  ASSERT_TRUE(overlay.WriteAt(0, content));
  const auto patches = Patches(overlay);
  ASSERT_EQ(patches.size(), 2u);
  EXPECT_EQ(patches[1].offset, kMiB - 10);
  EXPECT_EQ(patches[1].new_bytes.size(), 20u);
}

TEST(Overlay, ShrinkThenGrowReadsZeros) {
  MemoryStore base(ByteVector(20000, 0xAB));
  Overlay overlay(base);
  ASSERT_TRUE(overlay.WriteAt(9000, AsBytes("written")));
  ASSERT_TRUE(overlay.SetSize(9003));
  EXPECT_TRUE(overlay.Changed());
  ASSERT_TRUE(overlay.SetSize(20000));
  ByteVector expected(20000, 0);
  std::fill_n(expected.begin(), 9000, uint8_t{0xAB});
  std::ranges::copy(std::string_view("wri"), expected.begin() + 9000);
  EXPECT_EQ(ReadPastEnd(overlay), expected);
  EXPECT_TRUE(overlay.Changed());
  ExpectPatchesRebuild(base, overlay);
}

TEST(Overlay, GrowsByAWritePastTheEnd) {
  MemoryStore base(ByteVector(100, 1));
  Overlay overlay(base);
  ASSERT_TRUE(overlay.WriteAt(50000, AsBytes("x")));
  EXPECT_EQ(overlay.Size(), 50001u);
  auto patches = Patches(overlay);
  ASSERT_EQ(patches.size(), 1u);
  EXPECT_EQ(patches[0].offset, 50000u);
  EXPECT_TRUE(patches[0].old_bytes.empty());
  EXPECT_FALSE(overlay.WriteAt(UINT64_MAX - 1, AsBytes("xyz")));
  EXPECT_FALSE(overlay.SetSize(UINT64_MAX));
  ASSERT_TRUE(overlay.SetSize(uint64_t{1} << 62));  // costs nothing
  patches = Patches(overlay);
  EXPECT_EQ(patches.size(), 1u);
}

TEST(Overlay, ExtentsKnowPagesAndHoles) {
  MemoryStore base(ByteVector(20000, 1));
  Overlay overlay(base);
  ASSERT_TRUE(overlay.SetSize(12288));
  ASSERT_TRUE(overlay.SetSize(40960));
  ASSERT_TRUE(overlay.WriteAt(20480, AsBytes("x")));
  const HostExtent expected[] = {
      {0, 12288, false}, {12288, 8192, true}, {20480, 4096, false}, {24576, 16384, true}};
  for (const HostExtent& want : expected) {
    auto got = overlay.ExtentAt(want.offset);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->length, want.length);
    EXPECT_EQ(got->hole, want.hole);
  }
  EXPECT_FALSE(overlay.ExtentAt(40960));
}

// Random writes and sizes against a plain copy, with nearly all pages spilled.
class OverlayFuzz : public testing::TestWithParam<uint64_t> {};

TEST_P(OverlayFuzz, BehavesAsACopyWould) {
  TempDir dir;
  std::mt19937_64 random(GetParam());
  MemoryStore base(Noise(random() % 300000, GetParam()));
  MemoryStore model(base.bytes());
  Overlay lower(base, {.memory_limit = 8192, .spill_directory = dir.path()});
  for (int round = 0; round < 4; ++round) {
    Overlay upper(lower, {.memory_limit = 4096, .spill_directory = dir.path()});
    MemoryStore upper_model(model.bytes());
    for (int step = 0; step < 40; ++step) {
      const uint64_t offset = random() % 400000;
      if (random() % 5 == 0) {
        ASSERT_TRUE(upper.SetSize(offset));
        ASSERT_TRUE(upper_model.SetSize(offset));
      } else {
        const ByteVector bytes =
            random() % 4 == 0 ? ByteVector(random() % 20000) : Noise(random() % 9000, random());
        ASSERT_TRUE(upper.WriteAt(offset, bytes));
        ASSERT_TRUE(upper_model.WriteAt(offset, bytes));
      }
      ASSERT_EQ(upper.Size(), upper_model.Size());
    }
    ASSERT_EQ(ReadPastEnd(upper), upper_model.bytes());
    ExpectPatchesRebuild(model, upper);
    if (round == 2) continue;  // thrown away
    ASSERT_TRUE(lower.Absorb(upper));
    model = upper_model;
    ASSERT_EQ(ReadPastEnd(lower), model.bytes());
    ExpectPatchesRebuild(base, lower);
  }
  EXPECT_EQ(dir.Entries(), 0u);  // spill files have no name
}

INSTANTIATE_TEST_SUITE_P(Seeds, OverlayFuzz, testing::Range<uint64_t>(1, 31));

TEST(Overlay, ManyThreadsReadTheSame) {
  TempDir dir;
  MemoryStore base(Noise(2 * kMiB, 3));
  Overlay overlay(base, {.memory_limit = 16 * 4096, .spill_directory = dir.path()});
  for (uint64_t i = 0; i < 64; ++i) {
    ASSERT_TRUE(overlay.WriteAt(i * 30000, Noise(100, i)));
  }
  const ByteVector expected = ReadPastEnd(overlay);
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> pool;
    for (int t = 0; t < 4; ++t) {
      pool.emplace_back([&] {
        for (int i = 0; i < 10; ++i) wrong += ReadPastEnd(overlay) != expected;
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(Overlay, ASpillThatFailsIsAnError) {
  MemoryStore base(ByteVector(10000, 1));
  Overlay overlay(base, {.memory_limit = 4096, .spill_directory = "/nonexistent"});
  ASSERT_TRUE(overlay.WriteAt(0, AsBytes("x")));
  auto status = overlay.WriteAt(5000, AsBytes("x"));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(status.error().message.find("/nonexistent"), std::string::npos);
  EXPECT_EQ(overlay.PagesHeld(), 1u);
}

}  // namespace
}  // namespace imgfsck
