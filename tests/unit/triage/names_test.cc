// SPDX-License-Identifier: Apache-2.0
#include "triage/policy/names.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace imgfsck {
namespace {

using enum ReasonCode;
using Codes = std::vector<ReasonCode>;

TEST(Names, PlainOnesPass) {
  for (std::string_view name :
       {"base.img", "./base.img", "a/b/c", "..base", "json/x", "dev/sda", "x..y/z", "c$", "a b",
        "Ünïcode", "./a:b", "./json:x", "file:base.img", ""}) {
    EXPECT_EQ(JudgeName(name), Codes{}) << name;
  }
}

TEST(Names, WhatIsNoFileName) {
  for (std::string_view name : {"json:{}", "nbd://host/x", "nbd:unix:/x", "http://x", "fat:rw:.",
                                "ssh://x", "rbd:x", "host_device:x", "file:json:{}", "xy:z"}) {
    EXPECT_EQ(JudgeName(name), Codes{kRefPseudo}) << name;
  }
}

TEST(Names, Devices) {
  for (std::string_view name :
       {"/dev/sda", "//dev/sda", "/./dev//sda", "/tmp/../dev/sda", "../../dev/sda",
        "/proc/self/environ", "/sys/x", "file:/dev/sda", "\\\\.\\PhysicalDrive0", "/DEV/sda"}) {
    const Codes codes = JudgeName(name);
    ASSERT_EQ(codes.size(), 2u) << name;
    EXPECT_EQ(codes[0], kRefDevice) << name;
    EXPECT_EQ(codes[1], kRefAbsolute) << name;
  }
}

TEST(Names, OtherMachines) {
  for (std::string_view name : {"\\\\host\\share\\x", "//host/share/x"}) {
    EXPECT_EQ(JudgeName(name), (Codes{kRefNetwork, kRefAbsolute})) << name;
  }
}

TEST(Names, WhatLeavesTheFolderOrHides) {
  for (std::string_view name :
       {std::string_view("/etc/passwd"), std::string_view("a/../../x"), std::string_view(".."),
        std::string_view("C:\\x.vhd"), std::string_view("c:x"), std::string_view("\\x"),
        std::string_view("a\0b", 3), std::string_view("a\x1b[2Jb"), std::string_view("a\xff"),
        std::string_view("gpj\xe2\x80\xae"
                         "exe")}) {
    EXPECT_EQ(JudgeName(name), Codes{kRefAbsolute}) << name;
  }
}

TEST(Names, AnyBytes) {
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string name(random() % 12, '\0');
    for (char& c : name)
      c = "/\\.:dev\0\xff"
          "ac"[random() % 12];
    EXPECT_LE(JudgeName(name).size(), 3u);
  }
}

}  // namespace
}  // namespace imgfsck
