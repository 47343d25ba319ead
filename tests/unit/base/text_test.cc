// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <gtest/gtest.h>

#include <random>

namespace imgfsck {
namespace {

TEST(Printable, LeavesTextAlone) {
  for (const char* text : {"", "plain", "na\xC3\xAFve", "\xE6\x97\xA5\xE6\x9C\xAC",
                           "\xF0\x9F\x92\xBE", "a\\b \"c\" 'd' <e>"}) {
    EXPECT_EQ(Printable(text), text);
  }
}

TEST(Printable, CanBeCut) {
  EXPECT_EQ(PrintableStart("abc", 3), "abc");
  EXPECT_EQ(PrintableStart("abcd", 3), "abc...");
  EXPECT_EQ(PrintableStart("a\xc3\xa4\xc3\xa4", 2), "a\xc3\xa4...");  // never inside a letter
  EXPECT_EQ(PrintableStart(std::string(1000000, '\0'), 8), "\\x00\\x00...");
}

TEST(Printable, StopsControlCharacters) {
  EXPECT_EQ(Printable("\x1b[31mred\x1b[0m"), "\\x1b[31mred\\x1b[0m");
  EXPECT_EQ(Printable("a\rb\nc\td\x7f"), "a\\x0db\\x0ac\\x09d\\x7f");
  EXPECT_EQ(Printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m");  // C1: a CSI in one character
}

TEST(Printable, StopsWhatReordersOrHides) {
  EXPECT_EQ(Printable("\xE2\x80\xAE"
                      "gpj.exe"),
            "\\xe2\\x80\\xaegpj.exe");                               // U+202E
  EXPECT_EQ(Printable("\xE2\x81\xA6x"), "\\xe2\\x81\\xa6x");         // U+2066
  EXPECT_EQ(Printable("\xE2\x80\x8B"), "\\xe2\\x80\\x8b");           // U+200B
  EXPECT_EQ(Printable("\xE2\x80\xA8"), "\\xe2\\x80\\xa8");           // U+2028
  EXPECT_EQ(Printable("\xEF\xBB\xBF"), "\\xef\\xbb\\xbf");           // U+FEFF
  EXPECT_EQ(Printable("\xF3\xA0\x81\x81"), "\\xf3\\xa0\\x81\\x81");  // a tag character
}

TEST(Printable, StopsInvalidUtf8) {
  EXPECT_EQ(Printable("\x80"), "\\x80");                             // continuation alone
  EXPECT_EQ(Printable("\xC3"), "\\xc3");                             // cut short
  EXPECT_EQ(Printable("\xE2\x82"), "\\xe2\\x82");                    // cut short
  EXPECT_EQ(Printable("\xC0\xAF"), "\\xc0\\xaf");                    // overlong
  EXPECT_EQ(Printable("\xE0\x80\xAF"), "\\xe0\\x80\\xaf");           // overlong
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");           // surrogate
  EXPECT_EQ(Printable("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  EXPECT_EQ(Printable("\xFFz"), "\\xffz");
  EXPECT_EQ(Printable("\xC3("), "\\xc3(");  // the character after it stays
}

TEST(Printable, NothingDangerousGetsOutOfNoise) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string noise(random() % 40, ' ');
    for (char& c : noise) c = static_cast<char>(random());
    const std::string out = Printable(noise);
    EXPECT_EQ(ValidUtf8(out), out);
    EXPECT_EQ(Printable(out), out);
    for (char c : out) ASSERT_TRUE(static_cast<uint8_t>(c) >= 0x20 && c != 0x7F);
  }
}

TEST(ValidUtf8, ReplacesOnlyWhatIsInvalid) {
  EXPECT_EQ(ValidUtf8("a\nb\x1b\xC3\xA9"), "a\nb\x1b\xC3\xA9");
  EXPECT_EQ(ValidUtf8("a\xFF"
                      "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(HumanSize, PicksAUnit) {
  EXPECT_EQ(HumanSize(0), "0 B");
  EXPECT_EQ(HumanSize(1023), "1023 B");
  EXPECT_EQ(HumanSize(1024), "1 KiB");
  EXPECT_EQ(HumanSize(1536), "1.5 KiB");
  EXPECT_EQ(HumanSize(UINT64_MAX), "16 EiB");
  EXPECT_EQ(Hex(0x1f000), "0x1f000");
}

TEST(ParseSize, Accepts) {
  const std::pair<const char*, uint64_t> cases[] = {
      {"0", 0},
      {"10", 10},
      {"10B", 10},
      {"64K", 65536},
      {"64k", 65536},
      {"64KiB", 65536},
      {"1.5G", 3ull << 29},
      {"0.5K", 512},
      {"2T", 2ull << 40},
      {"3P", 3ull << 50},
      {"15E", 15ull << 60},
      {"0x200", 0x200},
      {"0X1f", 0x1f},
      {"18446744073709551615", UINT64_MAX},
      {"0xFFFFFFFFFFFFFFFF", UINT64_MAX},
  };
  for (const auto& [text, size] : cases) EXPECT_EQ(ParseSize(text), size) << text;
}

TEST(ParseSize, Refuses) {
  for (const char* text : {"",    " ",
                           "K",   "-1",
                           "+1",  " 1",
                           "1 ",  "1 K",
                           "1X",  "1KK",
                           "1.5", "1..5K",
                           ".K",  "x",
                           "0x",  "0xG",
                           "1e3", "18446744073709551616",
                           "16E", "20000000000G",
                           "iB",  "1,5K",
                           "0x-1"}) {
    EXPECT_FALSE(ParseSize(text)) << '"' << text << '"';
  }
  EXPECT_FALSE(ParseSize(std::string_view("1\0K", 3)));
}

}  // namespace
}  // namespace imgfsck
