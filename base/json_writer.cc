// SPDX-License-Identifier: Apache-2.0
#include "base/json_writer.h"

#include <fmt/format.h>

#include <cmath>

#include "base/text.h"

namespace imgfsck {

void JsonWriter::Value(double value) {
  Separate();
  out_.Put(std::isfinite(value) ? fmt::format("{}", value) : std::string("null"));
}

void JsonWriter::Escape(uint32_t code_point) {
  if (code_point == '\n') return out_.Put("\\n");
  if (code_point == '\t') return out_.Put("\\t");
  if (code_point < 0x10000) return out_.Put(fmt::format("\\u{:04x}", code_point));
  const uint32_t rest = code_point - 0x10000;
  out_.Put(fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF)));
}

void JsonWriter::Quote(std::string_view text) {
  out_.Put('"');
  while (!text.empty()) {
    size_t plain = 0;
    while (plain < text.size() && text[plain] >= ' ' && text[plain] < 0x7F && text[plain] != '"' &&
           text[plain] != '\\') {
      ++plain;
    }
    out_.Put(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) break;
    uint32_t code_point = 0;
    const size_t length = DecodeUtf8(text, &code_point);
    if (length == 0) {
      out_.Put("\xEF\xBF\xBD");
    } else if (code_point == '"' || code_point == '\\') {
      out_.Put('\\');
      out_.Put(text[0]);
    } else if (IsHarmless(code_point)) {
      out_.Put(text.substr(0, length));
    } else {
      Escape(code_point);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out_.Put('"');
}

}  // namespace imgfsck
