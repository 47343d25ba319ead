// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/checked.h"

namespace imgfsck {

size_t DecodeUtf8(std::string_view text, uint32_t* code_point) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  uint8_t first = byte(0);
  if (first < 0x80) {
    *code_point = first;
    return 1;
  }
  size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  uint32_t value = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    value = (value << 6) | (byte(i) & 0x3Fu);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
    return 0;
  }
  *code_point = value;
  return length;
}

bool IsHarmless(uint32_t c) {
  if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;  // C0, DEL, C1
  if (c >= 0x200B && c <= 0x200F) return false;           // zero width, marks
  if (c >= 0x2028 && c <= 0x202E) return false;           // separators, bidi overrides
  if (c >= 0x2060 && c <= 0x206F) return false;           // invisible, isolates
  return c != 0xFEFF && !(c >= 0xFFF9 && c <= 0xFFFB) && !(c >= 0xE0000 && c <= 0xE007F);
}

std::string Printable(std::string_view untrusted) { return PrintableStart(untrusted, SIZE_MAX); }

std::string PrintableStart(std::string_view untrusted, size_t most) {
  std::string out;
  while (!untrusted.empty()) {
    if (out.size() >= most) return out + "...";
    uint32_t code_point = 0;
    size_t length = DecodeUtf8(untrusted, &code_point);
    if (length != 0 && IsHarmless(code_point)) {
      out.append(untrusted.substr(0, length));
    } else {
      length = length == 0 ? 1 : length;
      for (char c : untrusted.substr(0, length)) {
        out += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
      }
    }
    untrusted.remove_prefix(length);
  }
  return out;
}

std::string ValidUtf8(std::string_view untrusted) {
  std::string out;
  while (!untrusted.empty()) {
    uint32_t code_point = 0;
    size_t length = DecodeUtf8(untrusted, &code_point);
    out.append(length != 0 ? untrusted.substr(0, length) : std::string_view("\xEF\xBF\xBD"));
    untrusted.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string Hex(uint64_t value) { return fmt::format("{:#x}", value); }

std::string HumanSize(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  double value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return value == std::floor(value) ? fmt::format("{:.0f} {}", value, kUnits[unit])
                                    : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::optional<uint64_t> ParseSize(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  }
  uint64_t whole = 0;
  const char* end = text.data() + text.size();
  auto [next, error] = std::from_chars(text.data(), end, whole, base);
  if (error != std::errc() || next == text.data()) return std::nullopt;
  double fraction = 0;
  if (base == 10 && next != end && *next == '.') {
    double scale = 0.1;
    for (++next; next != end && *next >= '0' && *next <= '9'; ++next, scale /= 10) {
      fraction += (*next - '0') * scale;
    }
  }
  std::string_view suffix(next, static_cast<size_t>(end - next));
  if (suffix.ends_with("iB")) suffix.remove_suffix(2);
  if (suffix.empty() || (base == 10 && suffix == "b") || suffix == "B") {
    return fraction == 0 ? std::optional(whole) : std::nullopt;
  }
  static constexpr std::string_view kLetters = "KMGTPE";
  if (suffix.size() != 1) return std::nullopt;
  size_t power = kLetters.find(static_cast<char>(suffix[0] & ~0x20));
  if (power == std::string_view::npos) return std::nullopt;
  uint64_t unit = uint64_t{1} << (10 * (power + 1));
  auto product = CheckedMul(whole, unit);
  if (!product) return std::nullopt;
  return CheckedAdd(*product, static_cast<uint64_t>(fraction * static_cast<double>(unit)));
}

}  // namespace imgfsck
