// SPDX-License-Identifier: Apache-2.0
#include "base/checked.h"

#include <gtest/gtest.h>

#include <random>

#include "base/bytes.h"
#include "base/units.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMax = UINT64_MAX;

TEST(Checked, RangeFitsAtItsEdges) {
  EXPECT_TRUE(RangeFits(0, 0, 0));
  EXPECT_TRUE(RangeFits(10, 0, 10));
  EXPECT_TRUE(RangeFits(9, 1, 10));
  EXPECT_FALSE(RangeFits(9, 2, 10));
  EXPECT_FALSE(RangeFits(11, 0, 10));
  EXPECT_FALSE(RangeFits(kMax, 2, 10));  // the sum would wrap to 1
  EXPECT_FALSE(RangeFits(2, kMax, 10));
  EXPECT_TRUE(RangeFits(0, kMax, kMax));
}

TEST(Checked, SumsAndProductsDoNotWrap) {
  EXPECT_EQ(CheckedAdd(kMax - 1, 1), kMax);
  EXPECT_FALSE(CheckedAdd(kMax, 1));
  EXPECT_EQ(CheckedMul(1ull << 32, (1ull << 32) - 1), kMax - ((1ull << 32) - 1));
  EXPECT_FALSE(CheckedMul(1ull << 32, 1ull << 32));
  EXPECT_EQ(CheckedMul(kMax, 0), 0u);
  EXPECT_EQ(CheckedMul(0, kMax), 0u);
  EXPECT_EQ(SaturatingAdd(kMax, kMax), kMax);
  EXPECT_EQ(SaturatingMul(kMax, 2), kMax);
  EXPECT_EQ(SaturatingMul(3, 4), 12u);
}

TEST(Checked, AgreesWithWideArithmetic) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t a = random() >> (random() % 64), b = random() >> (random() % 64);
    __extension__ using Wide = unsigned __int128;
    const Wide sum = Wide{a} + b, product = Wide{a} * b;
    ASSERT_EQ(CheckedAdd(a, b).has_value(), sum <= kMax);
    ASSERT_EQ(CheckedMul(a, b).has_value(), product <= kMax);
    ASSERT_EQ(SaturatingMul(a, b), product > kMax ? kMax : static_cast<uint64_t>(product));
    if (b != 0) {
      ASSERT_EQ(DivRoundUp(a, b), static_cast<uint64_t>((Wide{a} + b - 1) / b));
    }
  }
}

TEST(Checked, Alignment) {
  EXPECT_EQ(AlignDown(4095, 4096), 0u);
  EXPECT_EQ(AlignUp(1, 4096), 4096u);
  EXPECT_EQ(AlignUp(4096, 4096), 4096u);
  EXPECT_EQ(AlignUp(kMax - 5, 4096), kMax - 4095);
  EXPECT_TRUE(IsAligned(0, 512));
  EXPECT_FALSE(IsAligned(511, 512));
}

TEST(Units, Ranges) {
  const HostRange range = MakeHostRange(100, 10);
  EXPECT_TRUE(range.Contains(100));
  EXPECT_TRUE(range.Contains(109));
  EXPECT_FALSE(range.Contains(110));
  EXPECT_FALSE(range.Contains(99));
  EXPECT_TRUE(range.Overlaps(MakeHostRange(109, 1)));
  EXPECT_FALSE(range.Overlaps(MakeHostRange(110, 1)));
  EXPECT_FALSE(range.Overlaps(MakeHostRange(90, 10)));
}

TEST(BytesTest, BothOrdersAtAnyAlignment) {
  ByteVector bytes(9);
  PutBe<uint32_t>(bytes, 1, 0x01020304);
  EXPECT_EQ(HexEncode(bytes), "000102030400000000");
  EXPECT_EQ(BeAt<uint32_t>(bytes, 1), 0x01020304u);
  EXPECT_EQ(LeAt<uint32_t>(bytes, 1), 0x04030201u);
  PutLe<uint64_t>(bytes, 1, 0x1122334455667788);
  EXPECT_EQ(BeAt<uint64_t>(bytes, 1), 0x8877665544332211u);
  EXPECT_EQ(BeAt<uint16_t>(bytes, 7), 0x2211u);
  EXPECT_EQ(BeAt<uint8_t>(bytes, 8), 0x11u);
}

TEST(BytesTest, AllZeroAndHex) {
  for (size_t length = 0; length < 70; ++length) {
    ByteVector bytes(length);
    EXPECT_TRUE(AllZero(bytes));
    for (size_t i = 0; i < length; ++i) {
      bytes[i] = 1;
      EXPECT_FALSE(AllZero(bytes)) << i << " of " << length;
      bytes[i] = 0;
    }
  }
  ByteVector out;
  EXPECT_TRUE(HexDecode("00fFa5", &out));
  EXPECT_EQ(out, (ByteVector{0, 0xFF, 0xA5}));
  EXPECT_FALSE(HexDecode("0", &out));
  EXPECT_FALSE(HexDecode("0g", &out));
  EXPECT_TRUE(HexDecode("", &out));
  EXPECT_TRUE(out.empty());
}

}  // namespace
}  // namespace imgfsck
