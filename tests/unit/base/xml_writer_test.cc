// SPDX-License-Identifier: Apache-2.0
#include "base/xml_writer.h"

#include <gtest/gtest.h>

namespace imgfsck {
namespace {

using namespace std::string_literals;

constexpr char kReplacement[] = "\xEF\xBF\xBD";

template <class Body>
std::string Written(Body body) {
  std::string text;
  TextWriter out(&text);
  XmlWriter xml(out);
  body(xml);
  out.Flush();
  return text;
}

TEST(Markup, WhatMeansSomethingIsEscaped) {
  EXPECT_EQ(EscapeMarkup("<a href='x'>\"&\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;");
  EXPECT_EQ(EscapeMarkup("a\tb\n"), "a&#9;b&#10;");
  EXPECT_EQ(EscapeMarkup("grün 漢字 😀"), "grün 漢字 😀");
}

TEST(Markup, WhatXmlCannotHoldIsReplaced) {
  for (const std::string& bad : {"\0"s, "\x1b"s, "\x7f"s, "\xff"s, "\xC2\x9B"s, "\r"s,
                                 "\xEF\xBF\xBF"s, "\xE2\x80\xAE"s, "\xED\xA0\x80"s}) {
    EXPECT_FALSE(FitsMarkup("a" + bad));
    const std::string escaped = EscapeMarkup("a" + bad + "b");
    EXPECT_TRUE(escaped.starts_with("a"s + kReplacement)) << escaped;
    EXPECT_TRUE(escaped.ends_with("b")) << escaped;
    EXPECT_EQ(escaped.find(bad), std::string::npos);
  }
  EXPECT_TRUE(FitsMarkup("a\tb\nü"));
}

TEST(Xml, ElementsNest) {
  EXPECT_EQ(Written([](XmlWriter& xml) {
              xml.Open("a");
              xml.Attribute("n", 7);
              xml.Attribute("t", "<\">");
              xml.Open("b");
              xml.Close();
              xml.Leaf("c", "x & y");
              xml.Leaf("d", uint64_t{18446744073709551615u});
              xml.Leaf("e", "");
              xml.Close();
            }),
            "<a n=\"7\" t=\"&lt;&quot;&gt;\">\n  <b/>\n  <c>x &amp; y</c>\n"
            "  <d>18446744073709551615</d>\n  <e/>\n</a>\n");
}

}  // namespace
}  // namespace imgfsck
