// SPDX-License-Identifier: Apache-2.0
#include "triage/inventory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

std::vector<std::string> Paths(const Inventory& inventory, const TempDir& dir) {
  std::vector<std::string> paths;
  for (const FoundFile& file : inventory.files) {
    paths.push_back(file.path.substr(dir.path().size() + 1));
  }
  return paths;
}

TEST(Inventory, FindsFilesOnceAndFollowsNoLinks) {
  TempDir dir, outside;
  outside.Put("secret", "x");
  mkdir(dir.File("b").c_str(), 0700);
  mkdir(dir.File("a").c_str(), 0700);
  dir.Put("b/one", "1");
  dir.Put("z", "22");
  ASSERT_EQ(symlink(outside.path().c_str(), dir.File("a/away").c_str()), 0);
  ASSERT_EQ(symlink(dir.path().c_str(), dir.File("a/loop").c_str()), 0);
  ASSERT_EQ(symlink("z", dir.File("link").c_str()), 0);
  ASSERT_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
  ASSERT_EQ(link(dir.File("z").c_str(), dir.File("a/hard").c_str()), 0);
  auto inventory = TakeInventory({dir.path(), dir.File("b"), dir.File("b/one")});
  ASSERT_TRUE(inventory);
  EXPECT_EQ(Paths(*inventory, dir), (std::vector<std::string>{"a/hard", "b/one"}));
  EXPECT_EQ(inventory->files[0].also, std::vector<std::string>{dir.File("z")});
  EXPECT_EQ(inventory->files[0].identity.size, 2u);
  EXPECT_TRUE(inventory->files[1].also.empty());
  EXPECT_EQ(inventory->directories, 3u);
  EXPECT_EQ(inventory->symlinks, 3u);
  EXPECT_EQ(inventory->specials, 1u);
  EXPECT_TRUE(inventory->errors.empty());
}

TEST(Inventory, ALinkThatTheUserNamedIsFollowed) {
  TempDir dir, other;
  other.Put("disk", "x");
  ASSERT_EQ(symlink(other.path().c_str(), dir.File("store").c_str()), 0);
  auto inventory = TakeInventory({dir.File("store")});
  ASSERT_TRUE(inventory);
  ASSERT_EQ(inventory->files.size(), 1u);
  EXPECT_EQ(inventory->files[0].path, dir.File("store/disk"));
}

TEST(Inventory, WhatIsMissingOrSpecialIsReportedAndTheRestIsFound) {
  TempDir dir;
  dir.Put("disk", "x");
  auto inventory = TakeInventory({"/dev/null", dir.path(), dir.File("none")});
  ASSERT_TRUE(inventory);
  EXPECT_EQ(inventory->files.size(), 1u);
  ASSERT_EQ(inventory->errors.size(), 2u);
  EXPECT_EQ(inventory->errors[0].path, "/dev/null");
  EXPECT_EQ(inventory->errors[1].error.code, ErrorCode::kNotFound);
}

TEST(Inventory, HostileNamesAndDeepFoldersAreOrdinary) {
  TempDir dir;
  const std::string evil = "\x1b[31m\n\xff\"<script>";
  dir.Put(evil, "x");
  std::string deep;
  for (int i = 0; i < 200; ++i) {
    deep += i == 0 ? "d" : "/d";
    mkdir(dir.File(deep).c_str(), 0700);
  }
  dir.Put(deep + "/disk", "x");
  auto inventory = TakeInventory({dir.path()});
  ASSERT_TRUE(inventory);
  ASSERT_EQ(inventory->files.size(), 2u);
  EXPECT_EQ(inventory->files[0].path, dir.File(evil));
  EXPECT_EQ(inventory->directories, 201u);
}

TEST(Inventory, LiesBelow) {
  TempDir dir;
  mkdir(dir.File("in").c_str(), 0700);
  ASSERT_EQ(symlink(dir.File("in").c_str(), dir.File("alias").c_str()), 0);
  EXPECT_TRUE(LiesBelow(dir.File("in/report"), {dir.File("in")}));
  EXPECT_TRUE(LiesBelow(dir.File("in/x/y"), {dir.File("in")}));
  EXPECT_TRUE(LiesBelow(dir.File("alias/report"), {dir.File("in")}));
  EXPECT_TRUE(LiesBelow(dir.File("in/report"), {dir.File("alias")}));
  EXPECT_FALSE(LiesBelow(dir.File("report"), {dir.File("in")}));
  EXPECT_FALSE(LiesBelow(dir.File("in/../report"), {dir.File("in")}));
  EXPECT_FALSE(LiesBelow(dir.File("inside"), {dir.File("in")}));
}

TEST(Inventory, StopsWhenAsked) {
  TempDir dir;
  RequestStop();
  auto inventory = TakeInventory({dir.path()});
  ClearStopRequest();
  ASSERT_FALSE(inventory);
  EXPECT_EQ(inventory.error().code, ErrorCode::kInterrupted);
}

}  // namespace
}  // namespace imgfsck
