// SPDX-License-Identifier: Apache-2.0
#include "triage/attention.h"

#include <gtest/gtest.h>

namespace imgfsck {
namespace {

class AttentionTest : public ::testing::Test {
 protected:
  TriagedFile& Add(const std::string& path) {
    TriagedFile& file = result_.files.emplace_back();
    file.file.path = path;
    file.facts.identity.kind = FileKind::kImage;
    file.facts.identity.format = "qcow2";
    file.facts.identity.examined = true;
    file.facts.complete = true;
    return file;
  }
  void Because(TriagedFile* file, ReasonCode code, std::string detail = {}) {
    file->facts.reasons.push_back({code, 0, 0, {}, std::move(detail)});
  }
  static void Damage(TriagedFile* file, Severity severity, uint64_t units) {
    file->facts.check.findings_by_severity[static_cast<size_t>(severity)] += 1;
    file->facts.check.units_by_severity[static_cast<size_t>(severity)] += units;
  }
  void Link(TriagedFile* child, const std::string& name) {
    child->facts.identity.links.push_back({"backing", name, "", 0, name.size()});
  }
  std::vector<std::string> Order() {
    Conclude(&result_);
    std::vector<std::string> names;
    for (size_t i : OrderOfAttention(result_)) names.push_back(result_.files[i].file.path);
    return names;
  }

  TriageResult result_;
};

using Names = std::vector<std::string>;

TEST_F(AttentionTest, KindsComeOneAfterTheOther) {
  result_.files.reserve(9);
  Add("/x/a-note").facts.identity.kind = FileKind::kOther;
  Add("/x/b-sound");
  Damage(&Add("/x/c-damaged"), Severity::kCorruption, 1);
  Because(&Add("/x/d-undecidable"), ReasonCode::kWorkerTime);
  Because(&Add("/x/e-unsafe"), ReasonCode::kRefBacking);
  EXPECT_EQ(Order(),
            (Names{"/x/e-unsafe", "/x/d-undecidable", "/x/c-damaged", "/x/b-sound", "/x/a-note"}));
  EXPECT_EQ(ExitCodeOf(result_), 4);
  EXPECT_EQ(WhyLookAt(result_, 1), "");
  EXPECT_EQ(WhyLookAt(result_, 4), "ref-backing");
}

TEST_F(AttentionTest, WhatMoreDependsOnComesFirst) {
  result_.files.reserve(9);
  Damage(&Add("/x/alone"), Severity::kCorruption, 1000);
  Damage(&Add("/x/base"), Severity::kCorruption, 1);
  Link(&Add("/x/child"), "base");
  Link(&Add("/x/grandchild"), "child");
  Conclude(&result_);
  EXPECT_EQ(DependentsOf(result_, 1), 2u);
  EXPECT_EQ(DependentsOf(result_, 3), 0u);
  EXPECT_EQ(Order().front(), "/x/base");
  EXPECT_EQ(WhyLookAt(result_, 1), "1 corruption; 2 images upon it");
}

TEST_F(AttentionTest, CyclesEnd) {
  result_.files.reserve(9);
  Link(&Add("/x/a"), "b");
  Link(&Add("/x/b"), "a");
  Link(&Add("/x/self"), "self");
  Order();
  EXPECT_EQ(DependentsOf(result_, 0), 1u);
  EXPECT_EQ(DependentsOf(result_, 2), 0u);
}

TEST_F(AttentionTest, ManyDependentsAreCountedSoFar) {
  result_.files.reserve(3000);
  Damage(&Add("/x/base"), Severity::kCorruption, 1);
  for (int i = 0; i < 2500; ++i) Link(&Add("/x/c" + std::to_string(i)), "base");
  Conclude(&result_);
  EXPECT_EQ(DependentsOf(result_, 0), kMostDependents);
  EXPECT_NE(WhyLookAt(result_, 0).find("1000 images or more upon it"), std::string::npos);
}

TEST_F(AttentionTest, APlanOfEncryptionAndHitsOfRulesAreDamage) {
  result_.files.reserve(9);
  Damage(&Add("/x/a"), Severity::kCorruption, 5);
  auto rule = [](std::string severity) {
    RuleFacts facts;
    facts.rule = "mine\x1b";
    facts.hits.push_back({std::move(severity), "found", {}, {}});
    return facts;
  };
  Add("/x/b").facts.rules.push_back(rule("corruption"));
  Add("/x/c").facts.rules.push_back(rule("warning"));
  Add("/x/d").facts.entropy.plan_repeats = 9;
  EXPECT_EQ(Order(), (Names{"/x/d", "/x/a", "/x/b", "/x/c"}));
  EXPECT_EQ(AttentionFor(result_, 1), Attention::kDamaged);
  EXPECT_EQ(AttentionFor(result_, 2), Attention::kSound);
  EXPECT_EQ(WhyLookAt(result_, 1), "rule mine\\x1b");
  EXPECT_EQ(WhyLookAt(result_, 3), "looks encrypted by a plan");
  result_.fail_on = Severity::kWarning;
  EXPECT_EQ(AttentionFor(result_, 2), Attention::kDamaged);
}

TEST_F(AttentionTest, MoreKindsOfReasonsThenMoreDamageThenThePath) {
  result_.files.reserve(9);
  Because(&Add("/x/one"), ReasonCode::kRefBacking);
  for (const char* name : {"again", "once more"}) {
    Because(&result_.files[0], ReasonCode::kRefBacking, name);
  }
  TriagedFile& two = Add("/x/two");
  Because(&two, ReasonCode::kRefBacking);
  Because(&two, ReasonCode::kDosSize);
  Damage(&Add("/x/x1"), Severity::kLeak, 1);
  Damage(&Add("/x/x2"), Severity::kLeak, 7);
  Damage(&Add("/x/x0"), Severity::kCorruption, 1);
  Damage(&Add("/x/x3"), Severity::kLeak, 1);
  EXPECT_EQ(Order(), (Names{"/x/two", "/x/one", "/x/x0", "/x/x2", "/x/x1", "/x/x3"}));
}

}  // namespace
}  // namespace imgfsck
