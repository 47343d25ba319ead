// SPDX-License-Identifier: Apache-2.0
// Byte spans, and integers in them in either byte order at any alignment.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace imgfsck {

using Bytes = std::span<const uint8_t>;
using MutableBytes = std::span<uint8_t>;
using ByteVector = std::vector<uint8_t>;

static_assert(std::endian::native == std::endian::little, "written and tested for little endian");

template <std::unsigned_integral T>
constexpr T ByteSwap(T value) {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

template <std::unsigned_integral T>
T LoadLe(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <std::unsigned_integral T>
T LoadBe(const uint8_t* p) {
  return ByteSwap(LoadLe<T>(p));
}
template <std::unsigned_integral T>
void StoreLe(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof value);
}
template <std::unsigned_integral T>
void StoreBe(uint8_t* p, T value) {
  StoreLe(p, ByteSwap(value));
}

// The same inside a span; the caller has checked the bounds, and we check again.
template <std::unsigned_integral T>
T BeAt(Bytes bytes, size_t offset) {
  return LoadBe<T>(bytes.subspan(offset, sizeof(T)).data());
}
template <std::unsigned_integral T>
T LeAt(Bytes bytes, size_t offset) {
  return LoadLe<T>(bytes.subspan(offset, sizeof(T)).data());
}
template <std::unsigned_integral T>
void PutBe(MutableBytes bytes, size_t offset, T value) {
  StoreBe(bytes.subspan(offset, sizeof(T)).data(), value);
}
template <std::unsigned_integral T>
void PutLe(MutableBytes bytes, size_t offset, T value) {
  StoreLe(bytes.subspan(offset, sizeof(T)).data(), value);
}

bool AllZero(Bytes bytes);

inline std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string HexEncode(Bytes bytes);                      // lower case, no separators
bool HexDecode(std::string_view text, ByteVector* out);  // false on anything else

}  // namespace imgfsck
