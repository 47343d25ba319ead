// SPDX-License-Identifier: Apache-2.0
// Writes XML 1.0 as it comes, two spaces a level. The caller nests properly and names elements; any
// bytes may be text: what XML cannot hold becomes U+FFFD.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "base/text_writer.h"

namespace imgfsck {

// `text` as it may stand between tags and in attributes, of XML and of HTML.
std::string EscapeMarkup(std::string_view text);
// False when EscapeMarkup() had to replace something by U+FFFD.
bool FitsMarkup(std::string_view text);

class XmlWriter {
 public:
  explicit XmlWriter(TextWriter& out) : out_(out) {}

  void Declaration() { out_.Put("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"); }
  void Open(std::string_view name);  // attributes may follow
  void Attribute(std::string_view name, std::string_view value);
  template <std::integral T>
  void Attribute(std::string_view name, T value) {
    Attribute(name, std::string_view(std::to_string(value)));
  }
  void Text(std::string_view text);  // instead of children
  void Close();

  // An element with nothing but text in it.
  void Leaf(std::string_view name, std::string_view text);
  template <std::integral T>
  void Leaf(std::string_view name, T value) {
    Leaf(name, std::string_view(std::to_string(value)));
  }

 private:
  void EndTag();  // of the element that was opened last, when it is not ended yet
  TextWriter& out_;
  std::vector<std::string> open_;
  bool in_tag_ = false, has_text_ = false;
};

}  // namespace imgfsck
