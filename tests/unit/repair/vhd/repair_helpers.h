// SPDX-License-Identifier: Apache-2.0
// Repairs a VHD in memory, and reads it as QEMU would: independently of our parser and driver.
#pragma once

#include <optional>

#include "repair/engine.h"
#include "tests/unit/analyzers/vhd/check_helpers.h"
#include "tests/unit/bytes.h"

namespace imgfsck::vhd {

inline Plan Repaired(const ByteSource& source, RepairOptions options) {
  options.check.deep = true;
  auto plan = MakePlan(source, kFormat, options);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
  if (!plan) std::abort();
  return std::move(*plan);
}
inline Plan Repaired(const ByteSource& source, RepairMode mode) {
  RepairOptions options;
  options.mode = mode;
  return Repaired(source, options);
}

// What ran and what was said, for messages of failing tests.
inline std::string Story(const Plan& plan) {
  std::string text;
  for (const PassRun& run : plan.passes) {
    text += run.name + (run.dropped ? " DROPPED: " + run.reason : "") + "\n";
    for (const std::string& done : run.outcome.particulars) text += "  " + done + "\n";
    for (const std::string& note : run.outcome.notes) text += "  " + note + "\n";
  }
  return text + "left:\n" + Said(plan.Final());
}

// QEMU 7.2's vpc_open and read, bitmaps ignored, differencing taken as dynamic. Nothing when it
// refuses the image.
inline std::optional<ByteVector> QemuContent(const ByteVector& file) {
  if (file.size() < 512) return std::nullopt;
  auto be = [&](uint64_t at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      value =
          value << 8 |
          (at + static_cast<uint64_t>(i) < file.size() ? file[at + static_cast<uint64_t>(i)] : 0);
    }
    return value;
  };
  auto is = [&](uint64_t at, std::string_view text) {
    return at + text.size() <= file.size() && AsText(Bytes(file).subspan(at, text.size())) == text;
  };
  uint64_t footer = 0;
  bool dynamic = true;
  if (!is(0, "conectix")) {
    footer = (file.size() + 511) / 512 * 512 - 512;
    if (!is(footer, "conectix") || be(footer + 60, 4) != 2) return std::nullopt;
    dynamic = false;
  }
  uint32_t sum = 0;
  for (uint64_t i = 0; i < 512; ++i) {
    if (i < 64 || i >= 68) sum += static_cast<uint32_t>(be(footer + i, 1));
  }
  if (~sum != be(footer + 64, 4)) return std::nullopt;
  uint64_t chs = be(footer + 56, 2) * be(footer + 58, 1) * be(footer + 59, 1);
  bool by_size = is(footer + 28, "win ") || is(footer + 28, "qem2") || is(footer + 28, "d2v ") ||
                 is(footer + 28, std::string_view("tap\0", 4)) || is(footer + 28, "CTXS") ||
                 chs == 65535ull * 16 * 255;
  uint64_t size = by_size ? be(footer + 48, 8) / 512 * 512 : chs * 512;
  constexpr uint64_t kMost = uint64_t{1} << 29;  // the disks of the tests are smaller
  if (size > kMost) return std::nullopt;
  ByteVector guest(size);
  auto copy = [&](uint64_t to, uint64_t from, uint64_t length) {
    for (uint64_t i = 0; i < length && from + i < file.size(); ++i) guest[to + i] = file[from + i];
  };
  if (!dynamic) {
    copy(0, 0, size);
    return guest;
  }
  uint64_t header = be(16, 8);
  if (header > file.size() || !is(header, "cxsparse")) return std::nullopt;
  uint64_t bat = be(header + 16, 8), entries = be(header + 28, 4), block = be(header + 32, 4);
  if (block < 512 || (block & (block - 1)) != 0 || block * entries < size) return std::nullopt;
  uint64_t bitmap = (block / 4096 + 511) / 512 * 512;
  if (bat + entries * 4 > file.size()) return std::nullopt;
  for (uint64_t i = 0; i < entries; ++i) {
    uint64_t entry = be(bat + i * 4, 4);
    if (entry == 0xFFFFFFFF) continue;
    if (entry * 512 + bitmap + block > file.size()) return std::nullopt;  // "truncated"
    if (i * block < size) copy(i * block, entry * 512 + bitmap, std::min(block, size - i * block));
  }
  return guest;
}

}  // namespace imgfsck::vhd
