// SPDX-License-Identifier: Apache-2.0
#include "triage/report/png.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

namespace imgfsck {
namespace {

TEST(Png, ChunksAndPixelsComeBack) {
  const ByteVector pixels = {0, 1, 2, 2, 1, 0};
  const Rgb palette[] = {{255, 255, 255}, {0, 114, 178}, {213, 94, 0}};
  const ByteVector png = MakePng(3, 2, pixels, palette);
  ASSERT_GT(png.size(), 8u);
  EXPECT_EQ(png[0], 0x89);
  ByteVector packed;
  std::string order;
  for (size_t at = 8; at < png.size();) {
    const uint32_t length = BeAt<uint32_t>(png, at);
    ASSERT_LE(at + 12 + length, png.size());
    const std::string type(png.begin() + static_cast<ptrdiff_t>(at) + 4,
                           png.begin() + static_cast<ptrdiff_t>(at) + 8);
    order += type + " ";
    EXPECT_EQ(BeAt<uint32_t>(png, at + 8 + length), crc32(0, png.data() + at + 4, 4 + length));
    if (type == "IHDR") {
      EXPECT_EQ(BeAt<uint32_t>(png, at + 8), 3u);
      EXPECT_EQ(BeAt<uint32_t>(png, at + 12), 2u);
    }
    if (type == "IDAT") {
      packed.assign(png.begin() + static_cast<ptrdiff_t>(at) + 8,
                    png.begin() + static_cast<ptrdiff_t>(at + 8 + length));
    }
    at += 12 + length;
  }
  EXPECT_EQ(order, "IHDR PLTE IDAT IEND ");
  ByteVector rows(8);
  uLongf size = rows.size();
  ASSERT_EQ(uncompress(rows.data(), &size, packed.data(), packed.size()), Z_OK);
  EXPECT_EQ(rows, (ByteVector{0, 0, 1, 2, 0, 2, 1, 0}));
}

}  // namespace
}  // namespace imgfsck
