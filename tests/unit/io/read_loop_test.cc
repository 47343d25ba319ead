// SPDX-License-Identifier: Apache-2.0
// A medium that is interrupted, short and bad in places.
#include "io/read_loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "base/units.h"

namespace imgfsck {
namespace {

// Byte i is i * 7; sectors [bad, bad_end) fail; a call that touches them fails as a whole.
struct Medium {
  uint64_t size = kMiB;
  uint64_t bad = UINT64_MAX, bad_end = UINT64_MAX;
  size_t longest = SIZE_MAX;
  int interruptions = 0;
  int calls = 0;

  static uint8_t At(uint64_t i) { return static_cast<uint8_t>(i * 7); }
  ssize_t Read(uint8_t* to, size_t length, uint64_t offset) {
    ++calls;
    if (interruptions > 0) {
      --interruptions;
      errno = EINTR;
      return -1;
    }
    if (offset >= size) return 0;
    length = std::min({length, longest, static_cast<size_t>(size - offset)});
    if (offset < bad_end && offset + length > bad) {
      errno = EIO;
      return -1;
    }
    for (size_t i = 0; i < length; ++i) to[i] = At(offset + i);
    return static_cast<ssize_t>(length);
  }
  Result<size_t> Loop(uint64_t offset, MutableBytes buffer) {
    return ReadLoop([this](uint8_t* to, size_t n, uint64_t at) { return Read(to, n, at); }, offset,
                    buffer, "medium");
  }
};

void ExpectPattern(Bytes bytes, uint64_t offset) {
  for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], Medium::At(offset + i)) << i;
}

TEST(ReadLoop, ShortAndInterruptedCallsAddUp) {
  Medium medium{.longest = 777, .interruptions = 3};
  ByteVector buffer(100000);
  auto got = medium.Loop(12345, buffer);
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, buffer.size());
  ExpectPattern(buffer, 12345);
}

TEST(ReadLoop, StopsAtTheEnd) {
  Medium medium{.size = 1000};
  ByteVector buffer(600);
  auto got = medium.Loop(700, buffer);
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, 300u);
}

TEST(ReadLoop, NamesTheFirstBadSectorAndFillsWhatPrecedes) {
  for (uint64_t start :
       {uint64_t{0}, uint64_t{1}, uint64_t{511}, uint64_t{4096}, uint64_t{70000}}) {
    for (uint64_t sector : {137u, 200u, 1500u, 2046u}) {
      Medium medium{.bad = sector * kSector, .bad_end = (sector + 1) * kSector};
      ByteVector buffer(kMiB - start);
      auto got = medium.Loop(start, buffer);
      ASSERT_FALSE(got);
      EXPECT_EQ(got.error().code, ErrorCode::kIo);
      EXPECT_EQ(got.error().offset, sector * kSector);
      ExpectPattern(Bytes(buffer).first(sector * kSector - start), start);
      EXPECT_LT(medium.calls, 64);  // narrowed down, not tried sector by sector
    }
  }
}

TEST(ReadLoop, AReadThatBeginsInsideABadSector) {
  Medium medium{.bad = 1024, .bad_end = 2048};
  ByteVector buffer(4096);
  auto got = medium.Loop(1100, buffer);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().offset, 1100u);
  ByteVector small(100);
  EXPECT_TRUE(medium.Loop(900, small));
  EXPECT_TRUE(medium.Loop(2048, small));
}

TEST(ReadLoop, OtherErrorsAreNotRetried) {
  int calls = 0;
  ByteVector buffer(4096);
  auto got = ReadLoop(
      [&](uint8_t*, size_t, uint64_t) {
        ++calls;
        errno = EBADF;
        return ssize_t{-1};
      },
      0, buffer, "medium");
  ASSERT_FALSE(got);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace imgfsck
