// SPDX-License-Identifier: Apache-2.0
#include "triage/report/png.h"

#include <zlib.h>

#include <string_view>

#include "base/result.h"

namespace imgfsck {
namespace {

constexpr uint8_t kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

// Length, type, data, and the CRC of type and data.
void AddChunk(std::string_view type, Bytes data, ByteVector* png) {
  uint8_t number[4];
  StoreBe(number, static_cast<uint32_t>(data.size()));
  png->insert(png->end(), number, number + 4);
  const size_t begin = png->size();
  png->insert(png->end(), type.begin(), type.end());
  png->insert(png->end(), data.begin(), data.end());
  const uLong crc = crc32(0, png->data() + begin, static_cast<uInt>(png->size() - begin));
  StoreBe(number, static_cast<uint32_t>(crc));
  png->insert(png->end(), number, number + 4);
}

}  // namespace

ByteVector MakePng(uint32_t width, uint32_t height, Bytes pixels, std::span<const Rgb> palette) {
  IMG_CHECK(uint64_t{width} * height == pixels.size());
  ByteVector png(std::begin(kSignature), std::end(kSignature));
  ByteVector header(13);
  PutBe<uint32_t>(header, 0, width);
  PutBe<uint32_t>(header, 4, height);
  header[8] = 8;  // bits a pixel
  header[9] = 3;  // by palette
  AddChunk("IHDR", header, &png);
  ByteVector colours;
  for (const Rgb& rgb : palette) colours.insert(colours.end(), rgb.begin(), rgb.end());
  AddChunk("PLTE", colours, &png);
  ByteVector rows;
  for (uint32_t y = 0; y < height; ++y) {
    rows.push_back(0);  // no filter
    const Bytes row = pixels.subspan(size_t{y} * width, width);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  uLongf size = compressBound(static_cast<uLong>(rows.size()));
  ByteVector packed(size);
  IMG_CHECK(compress2(packed.data(), &size, rows.data(), static_cast<uLong>(rows.size()), 9) ==
            Z_OK);
  AddChunk("IDAT", Bytes(packed).first(size), &png);
  AddChunk("IEND", {}, &png);
  return png;
}

}  // namespace imgfsck
