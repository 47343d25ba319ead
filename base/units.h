// SPDX-License-Identifier: Apache-2.0
// Host and guest positions are different types, so that one cannot stand in for the other.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace imgfsck {

template <class Tag>
struct Position {
  uint64_t value = 0;
  friend constexpr auto operator<=>(Position, Position) = default;
};
using HostOffset = Position<struct HostTag>;    // bytes from the start of an image file
using GuestOffset = Position<struct GuestTag>;  // bytes from the start of a guest's disk

// A half-open byte range [offset, offset + length).
template <class Offset>
struct Range {
  Offset offset;
  uint64_t length = 0;
  constexpr uint64_t end() const { return offset.value + length; }
  constexpr bool Contains(uint64_t position) const {
    return position >= offset.value && position - offset.value < length;
  }
  constexpr bool Overlaps(const Range& other) const {
    return offset.value < other.end() && other.offset.value < end();
  }
  friend constexpr auto operator<=>(const Range&, const Range&) = default;
};
using HostRange = Range<HostOffset>;
using GuestRange = Range<GuestOffset>;

constexpr HostRange MakeHostRange(uint64_t offset, uint64_t length) {
  return {HostOffset{offset}, length};
}
constexpr GuestRange MakeGuestRange(uint64_t offset, uint64_t length) {
  return {GuestOffset{offset}, length};
}

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;
inline constexpr uint64_t kSector = 512;

}  // namespace imgfsck
