// SPDX-License-Identifier: Apache-2.0
#include "triage/chain_graph.h"

#include <gtest/gtest.h>

#include <list>

namespace imgfsck {
namespace {

constexpr int64_t kNano = 1'000'000'000;

class Graph : public ::testing::Test {
 protected:
  // Files in a folder that does not exist: nothing may depend on what is there.
  size_t Add(const std::string& path, const std::string& format = "qcow2") {
    FoundFile& file = files_.emplace_back();
    file.path = path;
    file.identity.mtime_ns = 100 * kNano;
    ImageFacts& facts = facts_.emplace_back();
    facts.identity.kind = FileKind::kImage;
    facts.identity.format = format;
    facts.identity.examined = true;
    facts.identity.virtual_size = facts.identity.file_size = 1000;
    return files_.size() - 1;
  }
  IdentityFacts& Id(size_t i) { return std::next(facts_.begin(), static_cast<long>(i))->identity; }
  ImageFacts& Facts(size_t i) { return *std::next(facts_.begin(), static_cast<long>(i)); }
  FoundFile& File(size_t i) { return *std::next(files_.begin(), static_cast<long>(i)); }
  void Link(size_t child, const std::string& name, const std::string& format = "",
            const std::string& kind = "backing") {
    Id(child).links.push_back({kind, name, format, 0, name.size()});
  }
  const ChainGraph& Run() {
    std::vector<ChainMember> members;
    auto facts = facts_.begin();
    for (const FoundFile& file : files_) members.push_back({&file, &*facts++});
    return graph_ = LinkChains(members);
  }
  const ChainEdge& Only() {
    Run();
    EXPECT_EQ(graph_.edges.size(), 1u);
    return graph_.edges.front();
  }

  std::list<FoundFile> files_;
  std::list<ImageFacts> facts_;
  ChainGraph graph_;
};

using Troubles = std::vector<LinkTrouble>;

TEST_F(Graph, FoundByPathHoweverItIsWritten) {
  for (const char* name : {"base", "./base", "../d/base", "/none/d/base", "/none/x/../d/base",
                           "file:base", "file:/none/d/base"}) {
    files_.clear();
    facts_.clear();
    const size_t base = Add("/none/d/base"), child = Add("/none/d/child");
    Add("/none/e/base");
    Link(child, name, "qcow2");
    const ChainEdge& edge = Only();
    EXPECT_EQ(edge.state, LinkState::kFound) << name;
    EXPECT_EQ(edge.parent, base) << name;
    EXPECT_EQ(edge.by, FoundBy::kPath);
    EXPECT_EQ(edge.troubles, Troubles{}) << name;
    EXPECT_EQ(graph_.children[base], std::vector<size_t>{child});
  }
}

TEST_F(Graph, AnyNameOfAFileCounts) {
  const size_t base = Add("/none/a");
  File(base).also = {"/none/b"};
  Link(Add("/none/child"), "b");
  EXPECT_EQ(Only().parent, base);
}

TEST_F(Graph, MovedMissingAndAmbiguous) {
  const size_t child = Add("/none/d/child");
  Link(child, "/var/lib/images/base");
  EXPECT_EQ(Only().state, LinkState::kMissing);
  const size_t base = Add("/none/e/base");
  EXPECT_EQ(Only().parent, base);
  EXPECT_EQ(Only().by, FoundBy::kName);
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kMoved});
  const size_t other = Add("/none/f/base");
  EXPECT_EQ(Only().state, LinkState::kAmbiguous);
  EXPECT_EQ(Only().candidates, (std::vector<size_t>{base, other}));
}

TEST_F(Graph, CopiesOfOneFileAreNotAmbiguous) {
  Link(Add("/none/d/child"), "/gone/base");
  const size_t one = Add("/none/e/base"), other = Add("/none/f/base");
  for (size_t i : {one, other}) {
    Facts(i).container.done = true;
    Facts(i).container.digests["sha256"] = "00";
  }
  EXPECT_EQ(Only().parent, one);
  EXPECT_EQ(Only().by, FoundBy::kContent);
  Facts(other).container.unreadable.push_back(MakeHostRange(0, 512));
  EXPECT_EQ(Only().state, LinkState::kAmbiguous);
  Facts(one).container.unreadable = Facts(other).container.unreadable;
  EXPECT_EQ(Only().state, LinkState::kAmbiguous);
}

TEST_F(Graph, ARenamedBaseIsKnownByWhatTheChildRecorded) {
  const size_t child = Add("/none/child.cow", "cow");
  Link(child, "/gone/root.fs");
  Id(child).parent_mtime = 77;
  const size_t other = Add("/none/other", "raw"), base = Add("/none/renamed", "raw");
  EXPECT_EQ(Only().state, LinkState::kMissing);
  File(base).identity.mtime_ns = 77 * kNano + 5;
  EXPECT_EQ(Only().parent, base);
  EXPECT_EQ(Only().by, FoundBy::kContent);
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kMoved});
  Id(base).file_size = 1001;
  EXPECT_EQ(Only().state, LinkState::kMissing);
  Id(base).file_size = 1000;
  File(other).identity.mtime_ns = 77 * kNano;
  EXPECT_EQ(Only().state, LinkState::kMissing);  // two fit
  // Of two that have the name, the one of that time.
  File(other).path = "/none/e/root.fs";
  File(base).path = "/none/f/root.fs";
  File(other).identity.mtime_ns = 78 * kNano;
  EXPECT_EQ(Only().parent, base);
}

TEST_F(Graph, WhatIsNoFileIsNotLookedFor) {
  const size_t child = Add("/none/child");
  Add("/none/x");
  for (const char* name : {"json:{\"file\": \"x\"}", "nbd://host/x", "\\\\host\\x", ""}) {
    Id(child).links.clear();
    Link(child, name);
    EXPECT_EQ(Only().state, LinkState::kNotAFile) << name;
  }
}

TEST_F(Graph, AnIdCountsForMoreThanAName) {
  const size_t wrong = Add("/none/base.vhd", "vpc"), child = Add("/none/child.vhd", "vpc");
  Id(wrong).id = "11";
  Id(child).parent_id = "22";
  Link(child, "C:\\vm\\base.vhd", "vpc", "parent");
  Link(child, ".\\base.vhd", "vpc", "parent");
  EXPECT_EQ(Only().parent, wrong);
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kIdMismatch});
  const size_t right = Add("/none/renamed", "vpc");
  Id(right).id = "22";
  EXPECT_EQ(Only().parent, right);
  EXPECT_EQ(Only().by, FoundBy::kId);
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kMoved});
  Id(wrong).id = "22";
  EXPECT_EQ(Only().parent, wrong);
  EXPECT_EQ(Only().by, FoundBy::kPath);
  EXPECT_EQ(Only().troubles, Troubles{});
}

TEST_F(Graph, FormatSizeAndTimes) {
  const size_t base = Add("/none/base"), child = Add("/none/child");
  Link(child, "base", "raw");
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kFormatMismatch});
  Id(child).links[0].format = "qcow2";
  Id(base).virtual_size = 999;
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kShorter});
  Id(base).virtual_size = 2000;
  File(base).identity.mtime_ns += 1;
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kNewer});
  File(base).identity.mtime_ns -= 1;
  Id(child).parent_mtime = 100;
  EXPECT_EQ(Only().troubles, Troubles{});
  Id(child).parent_mtime = 99;
  EXPECT_EQ(Only().troubles, Troubles{LinkTrouble::kEdited});
  Id(child).format = "vpc";  // whose times are not to be trusted by the hour
  EXPECT_EQ(Only().troubles, Troubles{});
}

TEST_F(Graph, AliasesOfFormatsAreTheSame) {
  const size_t base = Add("/none/base", "vpc");
  Link(Add("/none/child"), "base", "vhd");
  EXPECT_EQ(Only().parent, base);
  EXPECT_EQ(Only().troubles, Troubles{});
}

TEST_F(Graph, CyclesAreMarkedAndChainsIntoThemAreNot) {
  const size_t a = Add("/none/a"), b = Add("/none/b"), c = Add("/none/c"), self = Add("/none/s");
  Link(a, "b");
  Link(b, "a");
  Link(c, "a");
  Link(self, "s");
  Run();
  auto troubles = [&](size_t i) { return graph_.edges[graph_.edges_of[i][0]].troubles; };
  EXPECT_EQ(troubles(a), Troubles{LinkTrouble::kCycle});
  EXPECT_EQ(troubles(b), Troubles{LinkTrouble::kCycle});
  EXPECT_EQ(troubles(c), Troubles{});
  EXPECT_EQ(troubles(self), Troubles{LinkTrouble::kCycle});
  EXPECT_EQ(graph_.children[a], (std::vector<size_t>{b, c}));
}

TEST_F(Graph, LongChainsAndManyChildren) {
  Add("/none/0");
  for (size_t i = 1; i < 20000; ++i) {
    const size_t child = Add("/none/" + std::to_string(i));
    Link(child, i % 2 ? std::to_string(i - 1) : "0");
  }
  Run();
  EXPECT_EQ(graph_.edges.size(), 19999u);
  EXPECT_EQ(graph_.children[0].size(), 10000u);
}

}  // namespace
}  // namespace imgfsck
