// SPDX-License-Identifier: Apache-2.0
#include "base/xml_writer.h"

#include "base/text.h"

namespace imgfsck {
namespace {

// Characters that XML 1.0 has, without those that hide or reorder text.
bool IsAllowed(uint32_t c) {
  if (c == '\t' || c == '\n') return true;
  return IsHarmless(c) && c != 0xFFFE && c != 0xFFFF;
}

}  // namespace

bool FitsMarkup(std::string_view text) {
  while (!text.empty()) {
    uint32_t code_point = 0;
    const size_t length = DecodeUtf8(text, &code_point);
    if (length == 0 || !IsAllowed(code_point)) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string EscapeMarkup(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    uint32_t code_point = 0;
    const size_t length = DecodeUtf8(text, &code_point);
    if (length == 0 || !IsAllowed(code_point)) {
      out += "\xEF\xBF\xBD";
    } else if (code_point == '&') {
      out += "&amp;";
    } else if (code_point == '<') {
      out += "&lt;";
    } else if (code_point == '>') {
      out += "&gt;";
    } else if (code_point == '"') {
      out += "&quot;";
    } else if (code_point == '\'') {
      out += "&#39;";
    } else if (code_point == '\n' || code_point == '\t') {
      out += code_point == '\n' ? "&#10;" : "&#9;";
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

void XmlWriter::EndTag() {
  if (!in_tag_) return;
  out_.Put(">");
  in_tag_ = false;
}

void XmlWriter::Open(std::string_view name) {
  EndTag();
  if (!open_.empty()) out_.Put('\n');
  out_.Put(std::string(2 * open_.size(), ' '));
  out_.Put('<');
  out_.Put(name);
  open_.emplace_back(name);
  in_tag_ = true;
  has_text_ = false;
}

void XmlWriter::Attribute(std::string_view name, std::string_view value) {
  out_.Put(' ');
  out_.Put(name);
  out_.Put("=\"");
  out_.Put(EscapeMarkup(value));
  out_.Put('"');
}

void XmlWriter::Text(std::string_view text) {
  EndTag();
  out_.Put(EscapeMarkup(text));
  has_text_ = true;
}

void XmlWriter::Close() {
  const std::string name = std::move(open_.back());
  open_.pop_back();
  if (in_tag_) {
    out_.Put("/>");
  } else {
    if (!has_text_) {
      out_.Put('\n');
      out_.Put(std::string(2 * open_.size(), ' '));
    }
    out_.Put("</");
    out_.Put(name);
    out_.Put('>');
  }
  in_tag_ = has_text_ = false;
  if (open_.empty()) out_.Put('\n');
}

void XmlWriter::Leaf(std::string_view name, std::string_view text) {
  Open(name);
  if (!text.empty()) Text(text);
  Close();
}

}  // namespace imgfsck
