// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/driver.h"

#include <gtest/gtest.h>

#include <random>

#include "base/checked.h"
#include "tests/unit/formats/vhd/vhd_helpers.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kSize = 20 * kTestBlock + 5 * 512;

class VhdDriverOnEveryKind : public testing::TestWithParam<const char*> {
 protected:
  CreateOptions Options() const {
    std::string kind = GetParam();
    if (kind == "differencing") return ChildOptions();
    return {{"subformat", kind}};
  }
};

// Random writes, zeros and discards at odd places against a plain array.
TEST_P(VhdDriverOnEveryKind, BehavesLikeAnArray) {
  const bool child = std::string(GetParam()) == "differencing";
  const ByteVector base = child ? Pattern(9, kSize - 3 * kTestBlock) : ByteVector();
  MemoryStore store;
  MakeVhd(store, kSize, Options());
  ByteVector model(kSize);
  std::copy(base.begin(), base.end(), model.begin());
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ASSERT_EQ(driver->VirtualSize(), kSize);
  std::mt19937_64 random(4);
  for (int round = 0; round < 400; ++round) {
    driver->SetBackingReader(ReaderOf(base));
    uint64_t offset = random() % kSize;
    uint64_t length =
        std::min<uint64_t>(random() % (round % 5 == 0 ? 200'000 : 3000), kSize - offset);
    if (round % 7 == 6) {  // whole sectors read as zeros; a child keeps what hides its parent's
      ASSERT_TRUE(driver->Discard(offset, length));
      const uint64_t begin = AlignUp(offset, 512), end = AlignDown(offset + length, 512);
      if (!child && begin < end) {
        std::fill_n(model.begin() + static_cast<ptrdiff_t>(begin), end - begin, uint8_t{0});
      }
    } else if (round % 3 == 2) {
      ASSERT_TRUE(driver->Zero(offset, length));
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(offset), length, uint8_t{0});
    } else {
      ByteVector bytes = Pattern(random(), length);
      ASSERT_TRUE(driver->Write(offset, bytes));
      std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(offset));
    }
    if (round % 50 == 49) {
      ASSERT_TRUE(driver->Close());
      driver = OpenStore(kFormat, store);
      ASSERT_TRUE(driver);
      driver->SetBackingReader(ReaderOf(base));
      ASSERT_EQ(ReadAll(*driver), model) << round;
    }
  }
}

TEST_P(VhdDriverOnEveryKind, StatusCoversTheDiskAndTellsTheTruth) {
  MemoryStore store;
  MakeVhd(store, kSize, Options());
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ASSERT_TRUE(driver->Write(3 * kTestBlock + 512, Pattern(1, 1024)));
  ASSERT_TRUE(driver->Write(9 * kTestBlock, Pattern(2, 2 * kTestBlock)));
  for (uint64_t at = 0; at < kSize;) {
    auto status = driver->StatusAt(at, kSize);
    ASSERT_TRUE(status);
    ASSERT_GT(status->length, 0u);
    ByteVector guest(status->length);
    ASSERT_TRUE(driver->Read(at, guest));
    if (status->host_offset) {
      ByteVector host(status->length);
      ASSERT_TRUE(ReadExact(store, *status->host_offset, host));
      EXPECT_EQ(host, guest) << at;
    } else {
      EXPECT_TRUE(AllZero(guest)) << at;
    }
    at += status->length;
  }
}

TEST_P(VhdDriverOnEveryKind, GrowsAndKeepsItsBytes) {
  MemoryStore store;
  MakeVhd(store, kSize, Options());
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ByteVector head = Pattern(3, 4 * kTestBlock), tail = Pattern(4, 700);
  ASSERT_TRUE(driver->Write(0, head));
  ASSERT_TRUE(driver->Write(kSize - 700, tail));
  const uint64_t bigger = 3000 * kTestBlock;
  ASSERT_TRUE(driver->Resize(bigger));
  ASSERT_EQ(driver->VirtualSize(), bigger);
  ASSERT_TRUE(driver->Write(bigger - 5, Pattern(5, 5)));
  EXPECT_FALSE(driver->Resize(kSize));
  ASSERT_TRUE(driver->Close());
  driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ASSERT_EQ(driver->VirtualSize(), bigger);
  ByteVector all = ReadAll(*driver);
  ByteVector expected(bigger);
  std::ranges::copy(head, expected.begin());
  std::ranges::copy(tail, expected.begin() + static_cast<ptrdiff_t>(kSize - 700));
  std::ranges::copy(Pattern(5, 5), expected.end() - 5);
  EXPECT_TRUE(all == expected);
}

INSTANTIATE_TEST_SUITE_P(Kinds, VhdDriverOnEveryKind,
                         testing::Values("fixed", "dynamic", "differencing"));

TEST(VhdDriver, BitmapsDecideWhatIsRead) {
  MemoryStore store;
  MakeVhd(store, kSize);
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ByteVector bytes = Pattern(7, 8 * 512);
  ASSERT_TRUE(driver->Write(0, bytes));
  uint64_t start = Entry(store, 0) * kSectorSize;
  store.bytes()[start] = 0x60;  // sectors 1 and 2
  ByteVector read(bytes.size());
  ASSERT_TRUE(driver->Read(0, read));
  for (size_t i = 0; i < read.size(); ++i) {
    bool written = i / 512 == 1 || i / 512 == 2;
    ASSERT_EQ(read[i], written ? bytes[i] : 0) << i;
  }
  // A write sets the bits of its sectors and of no other.
  ASSERT_TRUE(driver->Write(4 * 512 + 10, Pattern(8, 20)));
  EXPECT_EQ(store.bytes()[start], 0x68);
}

TEST(VhdDriver, ChildMarksOnlyWhatWasWritten) {
  MemoryStore store;
  MakeVhd(store, kSize, ChildOptions());
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ByteVector base = Pattern(11, kSize);
  driver->SetBackingReader(ReaderOf(base));
  ASSERT_TRUE(driver->Write(512, Pattern(12, 1024)));
  uint64_t start = Entry(store, 0) * kSectorSize;
  EXPECT_EQ(store.bytes()[start], 0x60);
  EXPECT_TRUE(AllZero(Bytes(store.bytes()).subspan(start + 1, 511)));
  // The parent's pointers and the table are where they were.
  auto image = Parsed(store);
  EXPECT_EQ(image->header_state, SlotState::kSound);
  EXPECT_EQ(driver->Backing()->name, "./p.vhd");
}

TEST(VhdDriver, TwoFootersEqualAfterEveryAllocation) {
  MemoryStore store;
  MakeVhd(store, kSize);
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  for (uint64_t block : {7u, 0u, 19u, 3u}) {
    ASSERT_TRUE(driver->Write(block * kTestBlock + 100, Pattern(block, 10)));
    Bytes all = store.bytes();
    EXPECT_TRUE(std::ranges::equal(all.first(512), all.last(512)));
    EXPECT_EQ((Entry(store, block) * kSectorSize) + kTestBlock + 512, all.size() - 512);
  }
}

TEST(VhdDriver, RefusesWhatItCouldMisread) {
  MemoryStore sound;
  MakeVhd(sound, kSize);
  ASSERT_TRUE(OpenStore(kFormat, sound)->Write(0, Pattern(1, 600)));
  auto opens = [](MemoryStore store, bool writable) {
    OpenOptions options;
    options.writable = writable;
    return kFormat.open(store, &store, options).has_value();
  };
  EXPECT_TRUE(opens(sound, true));
  {
    MemoryStore m(sound.bytes());  // header checksum
    m.bytes()[kFooterSize + 200] ^= 1;
    EXPECT_FALSE(opens(m, false));
  }
  {
    MemoryStore m(sound.bytes());  // trailing footer: readable, not writable
    m.bytes()[m.bytes().size() - 512 + footer_at::kTimestamp] ^= 1;
    EXPECT_TRUE(opens(m, false));
    EXPECT_FALSE(opens(m, true));
  }
  {
    MemoryStore m(sound.bytes());  // footers differ in size
    Footer footer = ParseFooter(Bytes(m.bytes()).first(512));
    footer.current_size -= 512;
    std::ranges::copy(Seal(&footer), m.bytes().begin());
    EXPECT_TRUE(opens(m, false));
    EXPECT_FALSE(opens(m, true));
  }
  {
    MemoryStore m(sound.bytes());  // a block inside the table
    SetEntry(m, 2, 3);
    EXPECT_FALSE(opens(m, true));
    OpenOptions options;
    auto driver = kFormat.open(m, nullptr, options);
    ASSERT_TRUE(driver);
    ByteVector buffer(512);
    EXPECT_TRUE((*driver)->Read(0, buffer));
    EXPECT_FALSE((*driver)->Read(2 * kTestBlock, buffer));
    EXPECT_FALSE((*driver)->Write(0, buffer));
  }
  {
    MemoryStore m(sound.bytes());  // suspended machine
    for (uint64_t at : {uint64_t{0}, m.Size() - 512}) {
      Footer footer = ParseFooter(Bytes(m.bytes()).subspan(at, 512));
      footer.saved_state = 1;
      std::ranges::copy(Seal(&footer), m.bytes().begin() + static_cast<ptrdiff_t>(at));
    }
    EXPECT_TRUE(opens(m, false));
    EXPECT_FALSE(opens(m, true));
  }
}

TEST(VhdDriver, LegacyFooterIsReadAndReplacedByAWholeOne) {
  MemoryStore store;
  MakeVhd(store, kSize);
  store.bytes().pop_back();
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ByteVector bytes = Pattern(1, 600);
  ASSERT_TRUE(driver->Write(0, bytes));
  EXPECT_EQ(store.Size() % 512, 0u);
  driver = OpenStore(kFormat, store);
  ByteVector read(600);
  ASSERT_TRUE(driver->Read(0, read));
  EXPECT_EQ(read, bytes);
}

TEST(VhdDriver, FixedDiskIsNotFooledByItsGuest) {
  MemoryStore inner, store;
  MakeVhd(inner, kSize);
  MakeVhd(store, kSize, {{"subformat", "fixed"}});
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  ASSERT_TRUE(driver->Write(0, inner.bytes()));
  EXPECT_EQ(kFormat.probe(store), ProbeScore::kSure);
  driver = OpenStore(kFormat, store);
  EXPECT_EQ(Parsed(store)->kind, Kind::kFixed);
  ByteVector read(inner.bytes().size());
  ASSERT_TRUE(driver->Read(0, read));
  EXPECT_TRUE(read == inner.bytes());
}

TEST(VhdCreate, SizesFollowThePolicy) {
  for (auto [force, size, expected] : {std::tuple{"off", 10 * kMiB, 20536ull * 512},
                                       {"on", 10 * kMiB, 10 * kMiB},
                                       {"off", 512, 34816},
                                       {"on", 512, 512},
                                       {"off", 200 * kGiB, 200 * kGiB}}) {
    MemoryStore store;
    MakeVhd(store, size, {{"force_size", force}, {"block_size", "2M"}});
    EXPECT_EQ(OpenStore(kFormat, store)->VirtualSize(), expected);
  }
}

TEST(VhdCreate, RefusesNonsense) {
  auto made = [](uint64_t size, CreateOptions options) {
    MemoryStore store;
    return Create(store, size, options).has_value();
  };
  EXPECT_TRUE(made(kMiB, {}));
  EXPECT_FALSE(made(0, {}));
  EXPECT_FALSE(made((kMaxSectors + 1) * 512, {}));
  EXPECT_FALSE(made(kMiB, {{"block_size", "3M"}}));
  EXPECT_FALSE(made(kMiB, {{"block_size", "2K"}}));
  EXPECT_FALSE(made(kMiB, {{"subformat", "sparse"}}));
  EXPECT_FALSE(made(kMiB, {{"subformat", "differencing"}}));
  EXPECT_FALSE(made(kMiB, {{"subformat", "fixed"}, {"backing_file", "x"}}));
  EXPECT_FALSE(made(kMiB, {{"backing_file", "x"}}));
  EXPECT_TRUE(made(kMiB, {{"backing_file", "x"}, {"backing_fmt", "raw"}}));
  EXPECT_FALSE(made(kMiB, {{"uuid", "12"}}));
  EXPECT_FALSE(made(kMiB, {{"no_such", "1"}}));
}

}  // namespace
}  // namespace imgfsck::vhd
