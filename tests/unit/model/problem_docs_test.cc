// SPDX-License-Identifier: Apache-2.0
// docs/problems.md is the registry's own text. With IMGFSCK_RENEW_DOCS=1 in the environment the
// test writes the page anew instead of comparing it.
#include "model/problem_docs.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "model/problem.h"

namespace imgfsck {
namespace {

constexpr char kPage[] = IMGFSCK_SOURCE_DIR "/docs/problems.md";

TEST(ProblemDocs, CheckedInPageIsUpToDate) {
  std::string expected = ProblemsMarkdown();
  if (std::getenv("IMGFSCK_RENEW_DOCS") != nullptr) {
    std::ofstream out(kPage, std::ios::binary | std::ios::trunc);
    ASSERT_TRUE(out << expected << std::flush) << kPage;
    GTEST_SKIP() << "wrote " << kPage;
  }
  std::ifstream in(kPage, std::ios::binary);
  ASSERT_TRUE(in) << kPage;
  std::ostringstream actual;
  actual << in.rdbuf();
  EXPECT_TRUE(actual.str() == expected)
      << kPage << " is out of date: run this test with IMGFSCK_RENEW_DOCS=1 and commit the page";
}

TEST(ProblemDocs, EveryProblemHasExactlyOneRow) {
  std::string page = ProblemsMarkdown();
  for (const ProblemInfo& info : AllProblems()) {
    std::string row = "\n| `" + std::string(info.code) + "` |";
    size_t first = page.find(row);
    ASSERT_NE(first, std::string::npos) << info.code;
    EXPECT_EQ(page.find(row, first + 1), std::string::npos) << info.code;
  }
}

}  // namespace
}  // namespace imgfsck
