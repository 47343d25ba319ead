// SPDX-License-Identifier: Apache-2.0
// The report for people: what must be in it, where the verdict stands, what must never get out.
#include "report/text.h"

#include <gmock/gmock.h>

#include <sstream>

#include "report/explain.h"
#include "report/words.h"
#include "tests/unit/report/report_fixture.h"

namespace imgfsck {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class TextReport : public ReportTest {
 protected:
  std::string Text(const ReportOptions& options = {}) {
    std::string text;
    TextWriter out(&text);
    WriteImageText(result_, options, out);
    EXPECT_TRUE(out.Finish());
    return text;
  }
  std::vector<std::string> Lines(const ReportOptions& options = {}) {
    std::vector<std::string> lines;
    std::istringstream in(Text(options));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
};

TEST_F(TextReport, CleanImageIsTwoLinesAndNoneWhenQuiet) {
  EXPECT_EQ(Text(),
            "/images/disk.qcow2: qcow2 (3), disk of 20 GiB, file of 3 GiB\n"
            "/images/disk.qcow2: OK, nothing is wrong\n");
  EXPECT_EQ(Text({.verbosity = -1}), "");
}

TEST_F(TextReport, DamageIsExplainedAndTheVerdictIsLast) {
  Finding finding = Make(lossy_, 0x50000, 2);
  finding.guest = MakeGuestRange(0x100000, 0x20000);
  finding.layer = "2";
  finding.detail = "entry 0x1";
  finding.also.push_back({"active", MakeGuestRange(0x700000, 0x20000), "l2[9]"});
  finding.effect = Effect::kWrong;
  before_.Add(finding);
  before_.Add(Make(leak_, 0x900000));
  const std::string text = Text();
  const ProblemInfo& info = InfoOf(lossy_);
  EXPECT_THAT(text, HasSubstr("CORRUPTION: " + std::string(info.what) + " (" +
                              std::string(info.code) + "), 2 times\n"));
  EXPECT_THAT(text,
              HasSubstr("  at: l2[7], file 0x50000-0x6ffff (128 KiB), guest 0x100000-0x11ffff "
                        "(128 KiB) of snapshot 2 \"daily\\x1b[2J\", 2 times: entry 0x1\n"
                        "    also claimed by: l2[9], guest 0x700000-0x71ffff (128 KiB) of the "
                        "active disk\n"
                        "  guest: the guest may read wrong data there\n"
                        "  repair: only by --repair=all: " +
                        std::string(info.mend) + "; can cost: " + std::string(info.cost) + "\n"));
  std::vector<std::string> lines = Lines();
  ASSERT_GE(lines.size(), 4u);
  EXPECT_EQ(lines[lines.size() - 4],
            "/images/disk.qcow2: DAMAGED: 2 corruptions, 1 leak. Nothing was changed.");
  EXPECT_THAT(lines[lines.size() - 3], HasSubstr("Do not start the VM"));
  EXPECT_THAT(lines[lines.size() - 2],
              StartsWith("  next: imgfsck --repair -- /images/disk.qcow2 "));
  EXPECT_THAT(lines.back(), HasSubstr("--repair=all --dry-run -- /images/disk.qcow2"));
}

TEST_F(TextReport, FindingsOfOneKindAreOneBlock) {
  for (uint64_t i = 0; i < 30; ++i) before_.Add(Make(leak_, i * 0x100000));
  const std::string what = InfoOf(leak_).what.data();
  std::string text = Text();
  EXPECT_EQ(text.find(what), text.rfind(what));
  EXPECT_THAT(text, HasSubstr(", 30 times\n"));
  EXPECT_THAT(text, Not(HasSubstr("file 0x1400000-")));
  EXPECT_THAT(text, HasSubstr("at: 10 more places not listed here (-v lists them)\n"));
  EXPECT_THAT(Text({.verbosity = 1}), HasSubstr("file 0x1d00000-"));
  text = Text({.max_findings = 3});
  EXPECT_THAT(text, HasSubstr("file 0x200000-"));
  EXPECT_THAT(text, Not(HasSubstr("file 0x300000-")));
  EXPECT_THAT(text, HasSubstr("27 more places not listed here"));
  EXPECT_THAT(text, HasSubstr("30 leaks. Nothing was changed."));
}

TEST_F(TextReport, UnkeptFindingsAreStillCounted) {
  Findings few(2);
  for (uint64_t i = 0; i < 9; ++i) few.Add(Make(leak_, i * 0x100000));
  result_.before = CheckOf(few);
  EXPECT_THAT(Text(), HasSubstr("9 cases in all, 7 places not kept here"));
  EXPECT_THAT(Text(), HasSubstr("9 leaks. Nothing was changed."));
}

TEST_F(TextReport, InfosAreBriefUnlessAskedFor) {
  Finding finding = Make(info_, 0x50000);
  finding.evidence = "seen before";
  before_.Add(finding);
  EXPECT_THAT(Text(), HasSubstr("INFO: "));
  EXPECT_THAT(Text(), Not(HasSubstr("file 0x50000")));
  EXPECT_THAT(Text(), HasSubstr("OK, nothing is wrong"));
  EXPECT_THAT(Text({.verbosity = 1}), HasSubstr("file 0x50000"));
  EXPECT_THAT(Text({.verbosity = 1}), HasSubstr("why: seen before (confidence 100 %)"));
}

TEST_F(TextReport, RepairSaysWhatItDidAndHowToTakeItBack) {
  before_.Add(Make(corruption_, 0x50000));
  before_.Add(Make(leak_, 0x100000, 3));
  after_.Add(Make(leak_, 0x100000, 1));
  result_.after = CheckOf(after_);
  RepairSummary repair;
  repair.mode = "safe";
  repair.patches = 5;
  repair.verified = true;
  repair.undo_file = "/images/disk.qcow2.imgfsck-undo";
  repair.done = {"counts written anew"};
  repair.refused = {"a split: no room"};
  repair.orphans = {4, 1, 2, "lost+found"};
  for (uint64_t i = 0; i < 25; ++i) repair.lost.push_back({"2", MakeGuestRange(i * 0x100, 0x10)});
  result_.repair = repair;
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("MENDED CORRUPTION: "));
  EXPECT_THAT(text, HasSubstr("\ndone: counts written anew\nnot done: a split: no room\n"
                              "clusters nobody referred to: 4 kept in lost+found, 1 linked in "
                              "again, 2 given back\nlost: guest 0x0-0xf (16 B) of snapshot 2 "));
  EXPECT_THAT(text, HasSubstr("lost: 5 more ranges (--lost-map FILE lists them)\n"));
  EXPECT_THAT(text, HasSubstr("  25 guest ranges may not be what the guest wrote: see above\n"));
  EXPECT_THAT(text, HasSubstr("/images/disk.qcow2: REPAIRED: 1 corruption, 2 leaks mended, 1 leak "
                              "left\n"));
  EXPECT_THAT(text, HasSubstr("to take it back: imgfsck --rollback "
                              "/images/disk.qcow2.imgfsck-undo -- /images/disk.qcow2\n"));
  EXPECT_THAT(text, Not(HasSubstr("NOT verified")));
}

TEST_F(TextReport, RepairNamesTheRangesThatStayWrong) {
  before_.Add(Make(corruption_, 0x50000));
  result_.after = CheckOf(after_);
  result_.repair = Summary("safe", false, 1);
  result_.repair->lost = {{"active", MakeGuestRange(0, 0x20000), Effect::kZero, false},
                          {"active", MakeGuestRange(0x40000, 1), Effect::kWrong, false}};
  EXPECT_THAT(Text(), HasSubstr("still reads as zeros: guest 0x0-0x1ffff (128 KiB) of the active"));
  EXPECT_THAT(Text(), HasSubstr("may still read as data of another place: guest 0x40000"));
  EXPECT_THAT(Text(), HasSubstr("2 guest ranges may not be what the guest wrote: see above\n"));
  result_.repair->dry_run = true;
  EXPECT_THAT(Text(), HasSubstr("would still read as zeros: guest 0x0-0x1ffff"));
}

TEST_F(TextReport, DryRunSaysWhatWouldBe) {
  before_.Add(Make(corruption_, 0x50000));
  result_.after = CheckOf(after_);
  result_.repair = Summary("all", true, 1);
  result_.repair->bytes_written = 4096;
  EXPECT_THAT(Text(), HasSubstr("DAMAGED: 1 corruption. A repair (--repair=all) would write 4 KiB "
                                "in 1 place; nothing would be left. Nothing was changed.\n"));
}

TEST_F(TextReport, RepairThatHelpsNothingSaysSo) {
  before_.Add(Make(lossy_, 0x50000));
  result_.after = CheckOf(before_);
  result_.repair = Summary("safe", false, 0);
  EXPECT_THAT(Text(), HasSubstr("--repair=safe can do nothing about it; nothing was changed."));
  EXPECT_THAT(Text(), HasSubstr("--repair=all --dry-run"));
}

TEST_F(TextReport, ErrorIsTheVerdict) {
  result_.before.reset();
  result_.error = Error{ErrorCode::kIo, "cannot read\x1b", 0x1000};
  EXPECT_EQ(Text(), "/images/disk.qcow2: FAILED: cannot read\\x1b (at 0x1000)\n");
  EXPECT_EQ(Text({.verbosity = -1}), Text());
}

TEST_F(TextReport, NothingAnImageSaysReachesTheTerminal) {
  result_.path = "a\x1b]0;evil\x07";
  result_.notes = {"backing \x1b[31m"};
  Finding finding = Make(corruption_, 0);
  finding.structure = "bitmap \"\x1b[2J\"";
  finding.detail = "\x9b";
  finding.evidence = "\x1b";
  finding.layer = "\x1b";
  finding.guest = MakeGuestRange(0, 1);
  finding.also.push_back({"\x1b", std::nullopt, "\x1b"});
  before_.Add(finding);
  for (char c : Text({.verbosity = 1})) {
    EXPECT_TRUE(c == '\n' || (c >= ' ' && c < 0x7f)) << static_cast<int>(c);
  }
}

TEST_F(TextReport, ColourOnlyWhenAsked) {
  before_.Add(Make(corruption_, 0));
  EXPECT_THAT(Text(), Not(HasSubstr("\x1b")));
  EXPECT_THAT(Text({.colour = true}), HasSubstr("\x1b[1;31mCORRUPTION\x1b[0m: "));
}

TEST(Words, ShellQuoting) {
  EXPECT_EQ(ShellQuoted("/a/b-c_1.qcow2"), "/a/b-c_1.qcow2");
  EXPECT_EQ(ShellQuoted("it's $HOME"), "'it'\\''s $HOME'");
  EXPECT_EQ(ShellQuoted(""), "''");
}

TEST(Explain, SaysAllOfARow) {
  for (const ProblemInfo& info : AllProblems()) {
    std::string text;
    TextWriter out(&text);
    WriteExplanation(info, out);
    ASSERT_TRUE(out.Finish());
    for (std::string_view part :
         {info.code, info.what, info.mend, info.cost, ToText(info.severity), ToText(info.repair)}) {
      EXPECT_THAT(text, HasSubstr(std::string(part)));
    }
  }
}

TEST(Explain, ListHasEveryProblemOnce) {
  std::string text;
  TextWriter out(&text);
  WriteProblemList(out);
  ASSERT_TRUE(out.Finish());
  EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')), AllProblems().size());
}

}  // namespace
}  // namespace imgfsck
