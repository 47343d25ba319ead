// SPDX-License-Identifier: Apache-2.0
#include "io/bad_ranges.h"

#include <gtest/gtest.h>

#include "temp_dir.h"

namespace imgfsck {
namespace {

constexpr char kMap[] =
    "# Mapfile. Created by GNU ddrescue version 1.26\n"
    "# Command line: ddrescue -d /dev/sdb image map\n"
    "0x00120000     ?               1\n"
    "#      pos        size  status\n"
    "0x00000000  0x00010000  +\n"
    "0x00010000  0x00001000  -\n"
    "0x00011000  0x00000200  *\n"
    "0x00011200  512  /\r\n"
    "0x00011400  0x00000C00  +\n"
    "0x00012000  0x1000  ?\n";

TEST(DdrescueMap, ListsEveryPartThatIsNotFinished) {
  auto ranges = ParseDdrescueMap(kMap);
  ASSERT_TRUE(ranges) << ranges.error().message;
  EXPECT_EQ(*ranges, (std::vector{MakeHostRange(0x10000, 0x1400), MakeHostRange(0x12000, 0x1000)}));
}

TEST(DdrescueMap, RefusesOtherTextWithTheLine) {
  for (const char* text :
       {"", "# only a comment\n", "hello world\n", "0 +\n0x0 0x10\n", "0 +\n0x0 0x10 x\n",
        "0 +\n0 1 + 2\n", "0 +\n-1 1 -\n", "0 +\n09 1 -\n", "0 +\n0xFFFFFFFFFFFFFFFF 0x2 -\n",
        "0 +\n0x 1 -\n", "0 +\n0x10000000000000000 0x2 -\n"}) {
    auto ranges = ParseDdrescueMap(text);
    ASSERT_FALSE(ranges) << text;
    EXPECT_EQ(ranges.error().code, ErrorCode::kInvalid);
  }
  auto ranges = ParseDdrescueMap("0 +\n1 2 \x1b[2J\n");
  ASSERT_FALSE(ranges);
  EXPECT_EQ(ranges.error().message.find('\x1b'), std::string::npos);
  EXPECT_NE(ranges.error().message.find("line 2"), std::string::npos);
}

TEST(DdrescueMap, SortsAndMergesOverlaps) {
  auto ranges = ParseDdrescueMap("0 + 1\n100 50 -\n10 20 *\n120 100 /\n30 5 +\n");
  ASSERT_TRUE(ranges);
  EXPECT_EQ(*ranges, (std::vector{MakeHostRange(10, 20), MakeHostRange(100, 120)}));
}

TEST(DdrescueMap, WrittenMapIsReadBack) {
  const std::string map =
      FormatDdrescueMap(0x100000, {MakeGuestRange(0x20000, 0x1000), MakeGuestRange(0x1000, 0x200),
                                   MakeGuestRange(0x1200, 0x200), MakeGuestRange(0xFF000, 0x5000)});
  EXPECT_EQ(map,
            "# Mapfile. Created by imgfsck\n"
            "# current_pos  current_status  current_pass\n"
            "0x00000000     +               1\n"
            "#      pos        size  status\n"
            "0x00000000  0x00001000  +\n"
            "0x00001000  0x00000400  -\n"
            "0x00001400  0x0001ec00  +\n"
            "0x00020000  0x00001000  -\n"
            "0x00021000  0x000de000  +\n"
            "0x000ff000  0x00001000  -\n");
  TempDir dir;
  auto ranges = ReadDdrescueMap(dir.Put("map", map));
  ASSERT_TRUE(ranges);
  EXPECT_EQ(ranges->size(), 3u);
  EXPECT_EQ(ranges->back(), MakeHostRange(0xFF000, 0x1000));
  EXPECT_FALSE(ReadDdrescueMap(dir.File("none")));
}

TEST(BadRangeSource, FailsAsTheMediumWould) {
  MemoryStore base(ByteVector(10000, 7));
  BadRangeSource source(base, {MakeHostRange(2000, 100), MakeHostRange(9990, 5000)});
  ByteVector buffer(1000);
  struct {
    uint64_t offset;
    size_t length;
    std::optional<uint64_t> bad;
  } const cases[] = {{0, 1000, {}},      {1000, 1000, {}}, {1001, 1000, 2000}, {2050, 10, 2050},
                     {2099, 1, 2099},    {2100, 1000, {}}, {9000, 990, {}},    {9000, 991, 9990},
                     {9995, 1000, 9995}, {10000, 10, {}},  {2050, 0, {}}};
  for (const auto& test : cases) {
    std::ranges::fill(buffer, uint8_t{0});
    auto got = source.ReadAt(test.offset, MutableBytes(buffer).first(test.length));
    if (!test.bad) {
      ASSERT_TRUE(got) << test.offset;
      EXPECT_EQ(*got, test.offset >= 10000 ? 0 : test.length);
      continue;
    }
    ASSERT_FALSE(got) << test.offset;
    EXPECT_EQ(got.error().code, ErrorCode::kIo);
    EXPECT_EQ(got.error().offset, test.bad);
    for (uint64_t i = test.offset; i < *test.bad; ++i) ASSERT_EQ(buffer[i - test.offset], 7);
  }
}

}  // namespace
}  // namespace imgfsck
