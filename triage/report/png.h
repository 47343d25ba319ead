// SPDX-License-Identifier: Apache-2.0
// A small picture with a palette as a PNG file in memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.h"

namespace imgfsck {

using Rgb = std::array<uint8_t, 3>;

// `pixels`: indices into the palette, row by row; as many as width * height. Same input, same
// bytes.
ByteVector MakePng(uint32_t width, uint32_t height, Bytes pixels, std::span<const Rgb> palette);

}  // namespace imgfsck
