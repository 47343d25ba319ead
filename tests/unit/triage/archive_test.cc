// SPDX-License-Identifier: Apache-2.0
#include "triage/archive.h"

#include <gtest/gtest.h>

#include <random>

#include "triage/facts_io.h"

namespace imgfsck {
namespace {

IdentityFacts SomeIdentity() {
  IdentityFacts facts;
  facts.kind = FileKind::kImage;
  facts.format = "qcow2";
  facts.file_size = UINT64_MAX;
  facts.in_use = true;
  facts.signatures = {{"gpt", ContentKind::kPartitionTable, 512, 8}};
  facts.links = {{"backing", std::string("a\0b\xff", 4), "raw", 1, 2}};
  facts.snapshots.emplace_back().date_seconds = -5;
  return facts;
}

CheckFacts SomeCheck() {
  CheckFacts facts;
  facts.done = true;
  Finding finding;
  finding.problem = Problem::kQcow2RefcountLeak;
  finding.host = MakeHostRange(65536, 512);
  finding.severity = Severity::kWarning;
  finding.confidence = 0.25;
  finding.also = {{"active", MakeGuestRange(1, 2), "l2[0]"}, {"", {}, "l1"}};
  facts.findings = {finding};
  facts.findings_by_severity = {1, 2, 3, 4};
  return facts;
}

template <class T>
std::string Packed(T value) {
  Packer packer;
  packer(value);
  return packer.bytes();
}

TEST(Archive, WhatIsPackedIsUnpacked) {
  const std::string bytes = Packed(SomeIdentity());
  IdentityFacts facts;
  Unpacker unpacker(bytes);
  unpacker(facts);
  EXPECT_TRUE(unpacker.complete());
  EXPECT_EQ(facts.kind, FileKind::kImage);
  EXPECT_EQ(facts.file_size, UINT64_MAX);
  ASSERT_EQ(facts.links.size(), 1u);
  EXPECT_EQ(facts.links[0].name, std::string("a\0b\xff", 4));
  ASSERT_EQ(facts.snapshots.size(), 1u);
  EXPECT_EQ(facts.snapshots[0].date_seconds, -5);
  EXPECT_EQ(Packed(facts), bytes);
}

TEST(Archive, FindingsKeepWhatTheyOverride) {
  const std::string bytes = Packed(SomeCheck());
  CheckFacts facts;
  Unpacker unpacker(bytes);
  unpacker(facts);
  ASSERT_TRUE(unpacker.complete());
  ASSERT_EQ(facts.findings.size(), 1u);
  EXPECT_EQ(facts.findings[0].severity, Severity::kWarning);
  EXPECT_FALSE(facts.findings[0].repair.has_value());
  EXPECT_EQ(facts.findings[0].also[0].guest, MakeGuestRange(1, 2));
  EXPECT_EQ(facts.Findings(Severity::kCorruption), 4u);
  EXPECT_EQ(Packed(facts), bytes);
}

TEST(Archive, EveryTruncationIsNoticed) {
  const std::string bytes = Packed(SomeCheck());
  for (size_t length = 0; length < bytes.size(); ++length) {
    CheckFacts facts;
    Unpacker unpacker(std::string_view(bytes).substr(0, length));
    unpacker(facts);
    EXPECT_FALSE(unpacker.complete()) << length;
  }
}

// A worker may be in an attacker's hands: no byte may make the parent crash or allocate without
// bound, and what does come through is in its vocabulary.
TEST(Archive, WrongBytesNeverGetFar) {
  std::mt19937 random(7);
  const std::string good = Packed(SomeCheck());
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (auto n = 1 + random() % 3; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    CheckFacts facts;
    Unpacker unpacker(bytes);
    unpacker(facts);
    for (const Finding& finding : facts.findings) {
      EXPECT_FALSE(unpacker.ok() && ToText(finding.severity_or_default()).empty());
    }
  }
}

TEST(Archive, AnUnknownProblemIsRefused) {
  CheckFacts facts = SomeCheck();
  facts.findings[0].problem = static_cast<Problem>(64999);
  const std::string bytes = Packed(facts);
  Unpacker unpacker(bytes);
  CheckFacts read;
  unpacker(read);
  EXPECT_FALSE(unpacker.ok());
  EXPECT_TRUE(read.findings.empty());
}

}  // namespace
}  // namespace imgfsck
