// SPDX-License-Identifier: Apache-2.0
// The JSON document, read back by a parser that is not ours.
#include "report/json.h"

#include <nlohmann/json.hpp>

#include "report/explain.h"
#include "tests/unit/report/report_fixture.h"

namespace imgfsck {
namespace {

using nlohmann::json;

class JsonReport : public ReportTest {
 protected:
  json Document(const ReportOptions& options = {}) {
    std::string text;
    TextWriter out(&text);
    WriteImageJson(result_, options, out);
    EXPECT_TRUE(out.Finish());
    EXPECT_EQ(text.find('\n'), text.size() - 1) << "one line an image";
    json document = json::parse(text, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << text;
    return document;
  }
};

TEST_F(JsonReport, HasEveryKeyOfQemuImgCheck) {
  before_.Add(Make(corruption_, 0));
  before_.Add(Make(leak_, 0, 12));
  json document = Document();
  EXPECT_EQ(document["filename"], "/images/disk.qcow2");
  EXPECT_EQ(document["format"], "qcow2");
  EXPECT_EQ(document["check-errors"], 0);
  EXPECT_EQ(document["image-end-offset"], 3221225472);
  EXPECT_EQ(document["total-clusters"], 327680);
  EXPECT_EQ(document["allocated-clusters"], 49152);
  EXPECT_EQ(document["fragmented-clusters"], 100);
  EXPECT_EQ(document["compressed-clusters"], 7);
  EXPECT_EQ(document["corruptions"], 1);
  EXPECT_EQ(document["leaks"], 12);
  EXPECT_EQ(document["corruptions-fixed"], 0);
  EXPECT_EQ(document["leaks-fixed"], 0);
  EXPECT_EQ(document["virtual-size"], 20 * kGiB);
  EXPECT_EQ(document["file-size"], 3 * kGiB);
  EXPECT_EQ(document["format-version"], "3");
  EXPECT_EQ(document["warnings"], 0);
  EXPECT_EQ(document["exit-code"], 0);
  EXPECT_FALSE(document.contains("repair"));
}

TEST_F(JsonReport, FindingSaysEverything) {
  Finding finding = Make(lossy_, UINT64_MAX - 0xffff);
  finding.guest = MakeGuestRange(0x2000, 0x3000);
  finding.layer = "2";
  finding.detail = "entry 0xdeadbeef";
  finding.evidence = "a \"copy\" says so";
  finding.confidence = 0.25;
  finding.effect = Effect::kStale;
  finding.also = {{"active", MakeGuestRange(1, 2), "l2[1]"}, {"", std::nullopt, "l1"}};
  before_.Add(finding);
  json f = Document()["findings"].at(0);
  EXPECT_EQ(f["code"], InfoOf(lossy_).code);
  EXPECT_EQ(f["severity"], "corruption");
  EXPECT_EQ(f["structure"], "l2[7]");
  EXPECT_EQ(f["host-offset"], UINT64_MAX - 0xffff);
  EXPECT_EQ(f["length"], 0x10000);
  EXPECT_EQ(f["guest-offset"], 0x2000);
  EXPECT_EQ(f["guest-length"], 0x3000);
  EXPECT_EQ(f["count"], 1);
  EXPECT_EQ(f["message"], std::string(InfoOf(lossy_).what) + ": entry 0xdeadbeef");
  EXPECT_EQ(f["repair"], "all");
  EXPECT_EQ(f["fixed"], false);
  EXPECT_EQ(f["layer"], "2");
  EXPECT_EQ(f["effect"], "stale");
  EXPECT_EQ(f["confidence"], 0.25);
  EXPECT_EQ(f["evidence"], "a \"copy\" says so");
  EXPECT_EQ(f["also"], json::parse(R"([
      {"layer": "active", "guest-offset": 1, "guest-length": 2, "structure": "l2[1]"},
      {"layer": "", "structure": "l1"}])"));
}

TEST_F(JsonReport, PlacesThatDoNotApplyAreLeftOut) {
  Finding finding;
  finding.problem = corruption_;
  before_.Add(finding);
  json f = Document()["findings"].at(0);
  for (const char* key : {"host-offset", "length", "guest-offset", "guest-length", "layer"}) {
    EXPECT_FALSE(f.contains(key)) << key;
  }
}

TEST_F(JsonReport, ListIsCappedTotalsAreTrue) {
  for (uint64_t i = 0; i < 50; ++i) before_.Add(Make(leak_, i * 0x100000, 2));
  ReportOptions options;
  options.max_findings = 5;
  json document = Document(options);
  EXPECT_EQ(document["findings"].size(), 5u);
  EXPECT_EQ(document["leaks"], 100);
  EXPECT_EQ(document["totals"].at(0)["findings"], 50);
  EXPECT_EQ(document["totals"].at(0)["count"], 100);
  EXPECT_EQ(document["totals"].at(0)["code"], InfoOf(leak_).code);
}

TEST_F(JsonReport, RepairAndWhatIsLeft) {
  before_.Add(Make(corruption_, 0));
  before_.Add(Make(leak_, 0x100000, 3));
  after_.Add(Make(leak_, 0x100000, 1));
  result_.after = CheckOf(after_);
  RepairSummary repair;
  repair.mode = "all";
  repair.undo_file = "/images/disk.qcow2.imgfsck-undo";
  repair.patches = 7;
  repair.bytes_written = 4096;
  repair.verified = true;
  repair.lost = {{"active", MakeGuestRange(0x10000, 0x10000)}};
  repair.orphans = {1, 2, 3, "lost+found"};
  repair.done = {"counted anew"};
  result_.repair = repair;
  result_.exit_code = 4;
  json document = Document();
  EXPECT_EQ(document["corruptions"], 0);
  EXPECT_EQ(document["corruptions-fixed"], 1);
  EXPECT_EQ(document["leaks"], 1);
  EXPECT_EQ(document["leaks-fixed"], 2);
  EXPECT_EQ(document["exit-code"], 4);
  EXPECT_EQ(document["findings"].at(0)["fixed"], false);
  EXPECT_EQ(document["findings"].at(1)["fixed"], true);
  EXPECT_EQ(document["repair"], json::parse(R"({
      "mode": "all", "dry-run": false, "undo-file": "/images/disk.qcow2.imgfsck-undo",
      "patches": 7, "bytes-written": 4096, "verified": true,
      "lost": [{"layer": "active", "guest-offset": 65536, "guest-length": 65536, "effect": "zero",
                "by-repair": true}],
      "orphans": {"kept": 1, "relinked": 2, "freed": 3, "where": "lost+found"},
      "done": ["counted anew"], "refused": []})"));
}

TEST_F(JsonReport, ErrorWithoutACheckIsStillADocument) {
  result_.before.reset();
  result_.error = Error{ErrorCode::kNotFound, "no such file", 42};
  result_.exit_code = 8;
  json document = Document();
  EXPECT_EQ(document["format"], "");
  EXPECT_EQ(document["error"]["code"], "not-found");
  EXPECT_EQ(document["error"]["message"], "no such file");
  EXPECT_EQ(document["error"]["host-offset"], 42);
  EXPECT_TRUE(document["findings"].empty());
}

TEST_F(JsonReport, HostileTextStaysOneHarmlessLine) {
  result_.path = std::string("a\"\\\n\x1b[2J\xff\0b", 11);
  Finding finding = Make(corruption_, 0);
  finding.structure = "\xe2\x80\xae reversed \xf0\x9f\x92\xbe \xf3\xa0\x81\x81";
  before_.Add(finding);
  std::string text;
  TextWriter out(&text);
  WriteImageJson(result_, {}, out);
  ASSERT_TRUE(out.Finish());
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find("\xe2\x80\xae"), std::string::npos);
  json document = json::parse(text);
  EXPECT_EQ(document["filename"], std::string("a\"\\\n\x1b[2J\xef\xbf\xbd\0b", 13));
  EXPECT_EQ(document["findings"].at(0)["structure"], finding.structure);
}

TEST(ProblemListJson, IsALineForEachProblem) {
  std::string text;
  TextWriter out(&text);
  WriteProblemListJson(out);
  ASSERT_TRUE(out.Finish());
  size_t at = 0;
  for (const ProblemInfo& info : AllProblems()) {
    const size_t end = text.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    json line = json::parse(text.substr(at, end - at));
    EXPECT_EQ(line["code"], info.code);
    EXPECT_EQ(line["cost"], info.cost);
    at = end + 1;
  }
  EXPECT_EQ(at, text.size());
}

}  // namespace
}  // namespace imgfsck
