// SPDX-License-Identifier: Apache-2.0
// Whole contents, and contents that repeat nothing, for tests.
#pragma once

#include <gtest/gtest.h>

#include <random>

#include "io/byte_source.h"

namespace imgfsck {

inline ByteVector BytesOf(const ByteSource& source) {
  constexpr uint64_t kMost = uint64_t{1} << 28;
  EXPECT_LE(source.Size(), kMost) << "the file grew beyond all reason";
  if (source.Size() > kMost) return {};
  ByteVector bytes(source.Size());
  EXPECT_TRUE(ReadExact(source, 0, bytes));
  return bytes;
}

inline ByteVector Noise(size_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  ByteVector bytes(length);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

}  // namespace imgfsck
