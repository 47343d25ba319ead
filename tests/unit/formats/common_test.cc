// SPDX-License-Identifier: Apache-2.0
// The legacy encryption and the cluster codecs, against fixed vectors and against themselves.
#include <gtest/gtest.h>

#include <random>

#include "base/units.h"
#include "formats/common/deflate.h"
#include "formats/common/legacy_aes.h"

namespace imgfsck {
namespace {

ByteVector SomeText(size_t size) {
  ByteVector bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>((i / 7) ^ (i % 13));
  return bytes;
}

ByteVector Noise(size_t size) {
  std::mt19937 random(7);
  ByteVector bytes(size);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(LegacyAes, EncryptsAZeroSectorAsTheSheetSays) {
  // openssl enc -aes-128-cbc -K 616263000… -iv 0500…: the first block of sector 5.
  LegacyAes aes("abc");
  ByteVector sector(kSector);
  ASSERT_TRUE(aes.Encrypt(5 * kSector, sector));
  EXPECT_EQ(HexEncode(Bytes(sector).first(16)), "ad0434beef991b3da45f59c3d535d057");
  EXPECT_EQ(HexEncode(Bytes(sector).last(16)), "5f735153c47b8b4da660cfe1e149d6be");
}

TEST(LegacyAes, EverySectorHasItsOwnVector) {
  LegacyAes aes("0123456789abcdef-and-more-is-ignored"), same("0123456789abcdef");
  ByteVector plain = SomeText(4 * kSector), two = plain;
  ASSERT_TRUE(aes.Encrypt(8 * kSector, two));
  ByteVector third(plain.begin() + 2 * kSector, plain.begin() + 3 * kSector);
  ASSERT_TRUE(same.Encrypt(10 * kSector, third));
  EXPECT_TRUE(std::equal(third.begin(), third.end(), two.begin() + 2 * kSector));
  ASSERT_TRUE(same.Decrypt(8 * kSector, two));
  EXPECT_EQ(two, plain);
}

TEST(Deflate, RoundTripsAndToleratesWhatFollows) {
  ByteVector plain = SomeText(4096), back(4096);
  auto stream = DeflateRaw(plain, 4095);
  ASSERT_TRUE(stream && stream->has_value());
  size_t length = (**stream).size(), consumed = 0;
  (**stream).resize(length + 100, 0xEE);
  ASSERT_TRUE(InflateRaw(**stream, back, &consumed));
  EXPECT_EQ(back, plain);
  EXPECT_EQ(consumed, length);
}

TEST(Deflate, MissingEndMarkIsFineMissingDataIsNot) {
  ByteVector plain = SomeText(4096), back(4096);
  auto stream = DeflateRaw(plain, 4095);
  ASSERT_TRUE(stream && stream->has_value());
  ByteVector shorter(4095);  // a stream that goes on past the output
  EXPECT_TRUE(InflateRaw(**stream, shorter));
  ByteVector cut((**stream).begin(), (**stream).begin() + static_cast<long>((**stream).size() / 2));
  EXPECT_FALSE(InflateRaw(cut, back));
  Decoded part = InflateRawPart(cut, back);
  EXPECT_FALSE(part.complete);
  EXPECT_GT(part.produced, 0u);
  EXPECT_TRUE(
      std::equal(back.begin(), back.begin() + static_cast<long>(part.produced), plain.begin()));
  EXPECT_FALSE(InflateRaw(ByteVector{}, back));
  EXPECT_FALSE(InflateRaw(ByteVector(100, 0xFF), back));
}

TEST(Deflate, SaysWhenItDoesNotFit) {
  auto stream = DeflateRaw(Noise(4096), 4095);
  ASSERT_TRUE(stream);
  EXPECT_FALSE(stream->has_value());
}

TEST(Zstd, SeveralFramesThenJunk) {
  ByteVector plain = SomeText(8192), back(8192);
  auto first = ZstdEncode(Bytes(plain).first(3000), 3000);
  auto second = ZstdEncode(Bytes(plain).subspan(3000), 8000);
  ASSERT_TRUE(first && *first && second && *second);
  ByteVector stream = **first;
  stream.insert(stream.end(), (**second).begin(), (**second).end());
  size_t length = stream.size(), consumed = 0;
  stream.resize(length + 50, 0xAB);
  ASSERT_TRUE(ZstdDecode(stream, back, &consumed));
  EXPECT_EQ(back, plain);
  EXPECT_EQ(consumed, length);
}

TEST(Zstd, DemandsExactlyOneCluster) {
  ByteVector plain = SomeText(8192), longer(8193), shorter(8191);
  auto stream = ZstdEncode(plain, 8192);
  ASSERT_TRUE(stream && *stream);
  EXPECT_FALSE(ZstdDecode(**stream, longer));
  EXPECT_FALSE(ZstdDecode(**stream, shorter));
  ByteVector cut((**stream).begin(), (**stream).end() - 3), back(8192);
  EXPECT_FALSE(ZstdDecode(cut, back));
  EXPECT_FALSE(ZstdDecode(ByteVector{}, back));
  auto too_long = ZstdEncode(Noise(4096), 4095);
  ASSERT_TRUE(too_long);
  EXPECT_FALSE(too_long->has_value());
}

}  // namespace
}  // namespace imgfsck
