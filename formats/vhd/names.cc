// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <optional>

#include "base/text.h"

namespace imgfsck::vhd {
namespace {

void AppendUtf8(std::string* out, uint32_t c) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
    return;
  }
  int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static constexpr uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  *out += static_cast<char>(kLead[more] | c >> (6 * more));
  while (more-- > 0) *out += static_cast<char>(0x80 | (c >> (6 * more) & 0x3F));
}

// The code point that starts at text[*at]; *at moves past it. Input is valid UTF-8.
uint32_t NextCodePoint(std::string_view text, size_t* at) {
  auto lead = static_cast<uint8_t>(text[(*at)++]);
  if (lead < 0x80) return lead;
  int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  uint32_t c = lead & (0x3Fu >> more);
  for (; more > 0 && *at < text.size(); --more) {
    c = c << 6 | (static_cast<uint8_t>(text[(*at)++]) & 0x3Fu);
  }
  return c;
}

void PutUnit(ByteVector* out, uint32_t unit, ByteOrder order) {
  auto high = static_cast<uint8_t>(unit >> 8), low = static_cast<uint8_t>(unit);
  out->push_back(order == ByteOrder::kBig ? high : low);
  out->push_back(order == ByteOrder::kBig ? low : high);
}

std::optional<uint8_t> HexByte(std::string_view text) {
  ByteVector byte;
  if (text.size() != 2 || !HexDecode(text, &byte)) return std::nullopt;
  return byte[0];
}

std::string PercentDecoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    auto byte = text[i] == '%' ? HexByte(text.substr(i + 1, 2)) : std::nullopt;
    out += byte ? static_cast<char>(*byte) : text[i];
    if (byte) i += 2;
  }
  return out;
}

std::string PercentEncoded(std::string_view path) {
  std::string out;
  for (char c : path) {
    bool plain = static_cast<uint8_t>(c) > 0x20 && c != '%' && c != '?' && c != '#' && c != 0x7F;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<uint8_t>(c));
  }
  return out;
}

std::string UrlPath(std::string_view url) {
  static constexpr std::string_view kScheme = "file://";
  if (!url.starts_with(kScheme)) return {};
  url.remove_prefix(kScheme.size());
  if (url.starts_with("localhost/")) url.remove_prefix(std::string_view("localhost").size());
  return PercentDecoded(url);
}

}  // namespace

DecodedText DecodeUtf16(Bytes bytes, ByteOrder order) {
  DecodedText text;
  if (bytes.size() % 2 != 0) text.valid = false;
  auto unit = [&](size_t i) -> uint32_t {
    return order == ByteOrder::kBig ? BeAt<uint16_t>(bytes, 2 * i) : LeAt<uint16_t>(bytes, 2 * i);
  };
  size_t units = bytes.size() / 2;
  while (units > 0 && unit(units - 1) == 0) --units;
  for (size_t i = 0; i < units; ++i) {
    uint32_t c = unit(i);
    if (c >= 0xD800 && c < 0xDC00 && i + 1 < units && unit(i + 1) >> 10 == 0xDC00 >> 10) {
      c = 0x10000 + ((c - 0xD800) << 10) + (unit(++i) - 0xDC00);
    } else if (c == 0 || (c >= 0xD800 && c < 0xE000)) {
      text.valid = false;
      c = 0xFFFD;
    }
    AppendUtf8(&text.utf8, c);
  }
  return text;
}

ByteVector EncodeUtf16(std::string_view utf8, ByteOrder order) {
  std::string valid = ValidUtf8(utf8);
  ByteVector out;
  for (size_t at = 0; at < valid.size();) {
    uint32_t c = NextCodePoint(valid, &at);
    if (c >= 0x10000) {
      PutUnit(&out, 0xD800 + ((c - 0x10000) >> 10), order);
      c = 0xDC00 + ((c - 0x10000) & 0x3FF);
    }
    PutUnit(&out, c, order);
  }
  return out;
}

DecodedText DecodeLocator(uint32_t code, Bytes payload) {
  if (code == kLocatorW2ru || code == kLocatorW2ku) {
    return DecodeUtf16(payload, ByteOrder::kLittle);
  }
  if (code != kLocatorMacX && code != kLocatorWi2r && code != kLocatorWi2k) return {};
  while (!payload.empty() && payload.back() == 0) payload = payload.first(payload.size() - 1);
  std::string_view stored = AsText(payload);
  DecodedText text{ValidUtf8(stored), true};
  text.valid = text.utf8 == stored && stored.find('\0') == std::string_view::npos;
  return text;
}

std::string LocatorPath(uint32_t code, std::string_view decoded) {
  if (code == kLocatorMacX) return UrlPath(decoded);
  if (code == kLocatorMac || !IsKnownLocator(code)) return {};
  bool drive = decoded.size() >= 2 && decoded[1] == ':' &&
               ((decoded[0] | 0x20) >= 'a' && (decoded[0] | 0x20) <= 'z');
  std::string path(decoded.substr(drive ? 2 : 0));
  std::ranges::replace(path, '\\', '/');
  return path;
}

ByteVector EncodeLocator(uint32_t code, std::string_view path) {
  bool absolute = path.starts_with('/');
  if (code == kLocatorMacX) {
    std::string url = (absolute ? "file://" : "file://./") + PercentEncoded(path);
    return {url.begin(), url.end()};
  }
  bool prefixed = absolute || path.starts_with("./") || path.starts_with("../");
  std::string text = (prefixed ? "" : "./") + std::string(path);
  std::ranges::replace(text, '/', '\\');
  return EncodeUtf16(text, ByteOrder::kLittle);
}

bool IsKnownLocator(uint32_t code) {
  return code == kLocatorWi2r || code == kLocatorWi2k || code == kLocatorW2ru ||
         code == kLocatorW2ku || code == kLocatorMac || code == kLocatorMacX;
}

std::string_view Basename(std::string_view path) {
  size_t slash = path.find_last_of("/\\");
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string DateText(uint32_t timestamp) {
  std::time_t seconds = kEpoch + timestamp;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text, length};
}

std::string UuidText(Bytes id) {
  std::string hex = HexEncode(id);
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                     hex.substr(16, 4), hex.substr(20));
}

}  // namespace imgfsck::vhd
