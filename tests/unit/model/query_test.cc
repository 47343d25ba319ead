// SPDX-License-Identifier: Apache-2.0
// Output modes of queries, and what a query may not do.
#include "model/query.h"

#include <nlohmann/json.hpp>

#include "tests/unit/model/model_fixture.h"

namespace imgfsck {
namespace {

class QueryTest : public ModelTest {
 protected:
  QueryTest() : model_(std::move(*LiveModel::Open(source_))) {}

  std::string Ask(const std::string& sql, QueryMode mode) {
    std::string text;
    TextWriter out(&text);
    Status status = RunQuery(*model_, sql, mode, out);
    EXPECT_TRUE(status) << (status ? "" : status.error().message);
    EXPECT_TRUE(out.Finish());
    return text;
  }

  std::unique_ptr<LiveModel> model_;
  const std::string mixed_ =
      "SELECT 1 AS n, 'a,\"b\"' AS text UNION ALL SELECT -20, 'c' UNION ALL SELECT NULL, x'00ff' "
      "UNION ALL SELECT 0.5, char(27) || '[2J\xc3\xa4'";
};

TEST_F(QueryTest, Table) {
  EXPECT_EQ(Ask(mixed_, QueryMode::kTable),
            "n     text\n"
            "----  --------\n"
            "   1  a,\"b\"\n"
            " -20  c\n"
            "NULL  00ff\n"
            " 0.5  \\x1b[2J\xc3\xa4\n");
}

TEST_F(QueryTest, TableOfManyRowsKeepsAll) {
  const std::string text =
      Ask("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
          "SELECT i FROM n",
          QueryMode::kTable);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5002);
  EXPECT_TRUE(text.ends_with("\n5000\n"));
}

TEST_F(QueryTest, Csv) {
  EXPECT_EQ(Ask(mixed_, QueryMode::kCsv),
            "n,text\n"
            "1,\"a,\"\"b\"\"\"\n"
            "-20,c\n"
            ",00ff\n"
            "0.5,\\x1b[2J\xc3\xa4\n");
}

TEST_F(QueryTest, Json) {
  const std::string text = Ask(mixed_, QueryMode::kJson);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(text), nlohmann::json::parse(R"([
      {"n": 1, "text": "a,\"b\""}, {"n": -20, "text": "c"}, {"n": null, "text": "00ff"},
      {"n": 0.5, "text": "\u001b[2J\u00e4"}])"));
  EXPECT_EQ(Ask("SELECT 1 WHERE 0", QueryMode::kJson), "[]\n");
}

TEST_F(QueryTest, JsonLines) {
  EXPECT_EQ(Ask("SELECT 1 AS a; SELECT 2 AS b -- and no more", QueryMode::kJsonl),
            "{\"a\": 1}\n{\"b\": 2}\n");
}

TEST_F(QueryTest, ModeNames) {
  EXPECT_EQ(ParseQueryMode("jsonl"), QueryMode::kJsonl);
  EXPECT_EQ(ParseQueryMode("table"), QueryMode::kTable);
  EXPECT_FALSE(ParseQueryMode("xml"));
}

TEST_F(QueryTest, ReadsAndNothingElse) {
  for (const char* sql : {"DELETE FROM snapshot",
                          "INSERT INTO link SELECT * FROM link",
                          "UPDATE image SET path = ''",
                          "CREATE TABLE t(a)",
                          "CREATE TEMP TABLE t(a)",
                          "DROP TABLE link",
                          "ALTER TABLE link RENAME TO k",
                          "ATTACH '/tmp/imgfsck-query-test.db' AS x",
                          "DETACH main",
                          "VACUUM",
                          "VACUUM INTO '/tmp/imgfsck-query-test.db'",
                          "PRAGMA user_version = 7",
                          "PRAGMA journal_mode",
                          "PRAGMA temp_store_directory = '/tmp'",
                          "BEGIN",
                          "COMMIT",
                          "SAVEPOINT s",
                          "UPDATE sqlite_master SET sql = ''",
                          "PRAGMA writable_schema = 1",
                          "ANALYZE",
                          "SELECT load_extension('x')",
                          "CREATE VIRTUAL TABLE t USING fts5(a)",
                          "SELECT 1; DELETE FROM link",
                          "CREATE VIEW v AS SELECT 1",
                          "DELETE FROM mapping"}) {
    std::string text;
    TextWriter out(&text);
    EXPECT_FALSE(RunQuery(*model_, sql, QueryMode::kCsv, out)) << sql;
  }
  EXPECT_EQ(Ask("SELECT count(*) FROM link", QueryMode::kJsonl), "{\"count(*)\": 1}\n");
  Ask("PRAGMA table_info(mapping)", QueryMode::kTable);
  Ask("SELECT name FROM pragma_table_info('mapping')", QueryMode::kTable);
  Ask("SELECT name FROM sqlite_master", QueryMode::kTable);
}

TEST_F(QueryTest, AZeroByteIsNoEnd) {
  for (const std::string& sql : {std::string("\0", 1), std::string("SELECT 1;\0", 10),
                                 std::string("SELECT '\0'; SELECT 2", 20)}) {
    std::string text;
    TextWriter out(&text);
    const Status status = RunQuery(*model_, sql, QueryMode::kTable, out);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message, "the SQL text holds a zero byte");
  }
}

TEST_F(QueryTest, WriteErrorEndsIt) {
  FILE* full = fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  TextWriter out(fileno(full));
  Status status = RunQuery(
      *model_, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
      QueryMode::kJsonl, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  fclose(full);
}

}  // namespace
}  // namespace imgfsck
