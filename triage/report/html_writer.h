// SPDX-License-Identifier: Apache-2.0
// HTML with the two kinds of text kept apart: what the program says is a literal and goes out as it
// is; anything else goes out escaped.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/text_writer.h"
#include "base/xml_writer.h"

namespace imgfsck {

class HtmlWriter {
 public:
  explicit HtmlWriter(TextWriter& out) : out_(out) {}

  // Markup of our own: only a literal fits.
  template <size_t N>
  HtmlWriter& Raw(const char (&markup)[N]) {
    out_.Put(std::string_view(markup, N - 1));
    return *this;
  }
  HtmlWriter& Text(std::string_view text) {
    out_.Put(EscapeMarkup(text));
    return *this;
  }
  HtmlWriter& Number(uint64_t number) {
    out_.PutNumber(number);
    return *this;
  }
  // Base 64 or hexadecimal digits, for a URL.
  HtmlWriter& Encoded(std::string_view digits) { return Text(digits); }

  // <td>text</td>, and a cell of the table's head.
  HtmlWriter& Cell(std::string_view text) { return Raw("<td>").Text(text).Raw("</td>"); }
  HtmlWriter& NumberCell(uint64_t number) {
    return Raw("<td class=\"n\">").Number(number).Raw("</td>");
  }
  HtmlWriter& Head(std::string_view text) { return Raw("<th>").Text(text).Raw("</th>"); }

 private:
  TextWriter& out_;
};

}  // namespace imgfsck
