// SPDX-License-Identifier: Apache-2.0
#include "triage/reasons.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace imgfsck {
namespace {

TEST(Reasons, TheTableIsInOrder) {
  std::set<std::string_view> names;
  const std::regex name("[a-z]+(-[a-z]+)*"), cves("(CVE-20[0-9]{2}-[0-9]{4,7}( |$))*");
  for (const ReasonInfo& info : AllReasons()) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_EQ(&InfoOf(info.code), &info);
    EXPECT_TRUE(std::regex_match(std::string(info.name), name)) << info.name;
    EXPECT_TRUE(std::regex_match(std::string(info.answers), cves)) << info.name;
    EXPECT_FALSE(info.what.empty() || info.what.ends_with('.')) << info.name;
    EXPECT_EQ(info.what.find('|'), std::string_view::npos);
    // Strict is never milder than the other two, but where it takes formats that they refuse.
    if (info.code == ReasonCode::kFormatRefused) continue;
    EXPECT_GE(info.weights[2], info.weights[0]) << info.name;
    EXPECT_GE(info.weights[2], info.weights[1]) << info.name;
  }
}

TEST(Reasons, TheWorstDecides) {
  const Reason note{ReasonCode::kTimeBomb, 0, 0, {}, ""}, doubt{ReasonCode::kChanged, 0, 0, {}, ""},
      bad{ReasonCode::kRefBacking, 0, 0, {}, ""};
  EXPECT_EQ(Judge({}, Policy::kStrict), Verdict::kSafe);
  EXPECT_EQ(Judge({note}, Policy::kOpenstack), Verdict::kSafe);
  EXPECT_EQ(Judge({note}, Policy::kStrict), Verdict::kUndecidable);
  EXPECT_EQ(Judge({doubt, note}, Policy::kOpenstack), Verdict::kUndecidable);
  EXPECT_EQ(Judge({doubt, bad, note}, Policy::kOpenstack), Verdict::kUnsafe);
}

TEST(Reasons, SortedWithoutDuplicates) {
  std::vector<Reason> reasons = {{ReasonCode::kChanged, 0, 0, {}, ""},
                                 {ReasonCode::kRefBacking, 9, 1, {1}, "b"},
                                 {ReasonCode::kRefBacking, 2, 1, {1}, "a"},
                                 {ReasonCode::kChanged, 0, 0, {}, ""}};
  SortReasons(&reasons);
  ASSERT_EQ(reasons.size(), 3u);
  EXPECT_EQ(reasons[0].offset, 2u);
  EXPECT_EQ(reasons[2].code, ReasonCode::kChanged);
}

TEST(Reasons, PoliciesHaveNames) {
  for (Policy policy : {Policy::kOpenstack, Policy::kKubevirt, Policy::kStrict}) {
    EXPECT_EQ(ParsePolicy(ToText(policy)), policy);
  }
  EXPECT_FALSE(ParsePolicy("lenient"));
}

// docs/security.md holds the table; with IMGFSCK_RENEW_DOCS=1 it is written anew.
TEST(Reasons, ThePageIsUpToDate) {
  constexpr char kPage[] = IMGFSCK_SOURCE_DIR "/docs/security.md";
  std::ifstream in(kPage);
  std::stringstream text;
  text << in.rdbuf();
  std::string page = text.str();
  const size_t begin = page.find("-->\n") + 4, end = page.find("<!-- end -->");
  ASSERT_LT(begin, page.size());
  ASSERT_LE(begin, end);
  if (std::getenv("IMGFSCK_RENEW_DOCS") != nullptr) {
    page.replace(begin, end - begin, ReasonsMarkdown());
    ASSERT_TRUE(std::ofstream(kPage) << page << std::flush);
    GTEST_SKIP() << "wrote " << kPage;
  }
  EXPECT_EQ(page.substr(begin, end - begin), ReasonsMarkdown())
      << kPage << " is out of date: run this test with IMGFSCK_RENEW_DOCS=1";
}

}  // namespace
}  // namespace imgfsck
