// SPDX-License-Identifier: Apache-2.0
// Small VHDs in memory for the tests.
#pragma once

#include <gtest/gtest.h>

#include "formats/vhd/bat.h"
#include "formats/vhd/create.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/format.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::vhd {

inline constexpr uint64_t kTestBlock = 64 * kKiB;

// Reproducible: fixed id and time.
inline CreateOptions TestOptions(CreateOptions more = {}) {
  more.try_emplace("uuid", "00112233445566778899aabbccddeeff");
  more.try_emplace("timestamp", "1000000000");
  more.try_emplace("force_size", "on");
  bool fixed = more.contains("subformat") && more["subformat"] == "fixed";
  if (!fixed) more.try_emplace("block_size", "64K");
  return more;
}

inline void MakeVhd(ByteStore& store, uint64_t size, CreateOptions more = {}) {
  Status made = Create(store, size, TestOptions(std::move(more)));
  ASSERT_TRUE(made) << (made ? "" : made.error().message);
}

inline CreateOptions ChildOptions() {
  return {{"backing_file", "p.vhd"}, {"parent_uuid", "0102030405060708090a0b0c0d0e0f10"}};
}

inline std::unique_ptr<Image> Parsed(const ByteSource& source) {
  auto image = ParseImage(source, {});
  EXPECT_TRUE(image);
  return std::move(*image);
}

// The table's entry for block `index`, read and changed straight in the bytes.
inline uint32_t Entry(const MemoryStore& store, uint64_t index) {
  return BeAt<uint32_t>(store.bytes(), kDefaultTableOffset + index * 4);
}
inline void SetEntry(MemoryStore& store, uint64_t index, uint32_t sector) {
  PutBe<uint32_t>(store.bytes(), kDefaultTableOffset + index * 4, sector);
}

}  // namespace imgfsck::vhd
