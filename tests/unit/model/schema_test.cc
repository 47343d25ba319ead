// SPDX-License-Identifier: Apache-2.0
// The schema is what SQLite makes of schema.sql, its vocabularies are those of the code, and
// docs/model.md is its text. With IMGFSCK_RENEW_DOCS=1 in the environment the page is written anew.
#include "model/schema.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "model/database_file.h"
#include "model/query.h"
#include "tests/unit/io/temp_dir.h"
#include "tests/unit/model/model_fixture.h"

namespace imgfsck {
namespace {

TEST(SchemaTest, TakenApartAsSqliteSeesIt) {
  auto db = OpenSqlite(":memory:", SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(db);
  ASSERT_TRUE(Exec(db->get(), kSchemaSql));
  std::set<std::string> names;
  for (const SchemaTable& table : Schema()) {
    names.insert(table.name);
    EXPECT_FALSE(table.comment.empty()) << table.name;
    if (table.is_view) continue;
    auto columns = Statement::Prepare(
        db->get(), "SELECT name, type FROM pragma_table_info('" + table.name + "')");
    ASSERT_TRUE(columns);
    for (const SchemaColumn& column : table.columns) {
      ASSERT_TRUE(*columns->Step()) << table.name;
      EXPECT_EQ(columns->Text(0), column.name);
      EXPECT_EQ(columns->Text(1), column.type);
    }
    EXPECT_FALSE(*columns->Step()) << table.name;
  }
  auto in_sqlite = Statement::Prepare(db->get(), "SELECT name FROM sqlite_master ORDER BY name");
  ASSERT_TRUE(in_sqlite);
  for (const std::string& name : names) {
    ASSERT_TRUE(*in_sqlite->Step());
    EXPECT_EQ(in_sqlite->Text(0), name);
  }
  EXPECT_FALSE(*in_sqlite->Step());
}

std::vector<std::string> VocabularyOf(std::string_view table, std::string_view name) {
  for (const SchemaColumn& column : FindTable(table)->columns) {
    if (column.name == name) return column.vocabulary;
  }
  return {};
}

TEST(SchemaTest, VocabulariesAreThoseOfTheCode) {
  using testing::UnorderedElementsAre;
  auto text = [](auto value) { return std::string(ToText(value)); };
  EXPECT_THAT(VocabularyOf("mapping", "state"),
              UnorderedElementsAre(text(MappingState::kUnallocated), text(MappingState::kZero),
                                   text(MappingState::kData), text(MappingState::kCompressed)));
  EXPECT_THAT(VocabularyOf("finding", "severity"),
              UnorderedElementsAre(text(Severity::kInfo), text(Severity::kWarning),
                                   text(Severity::kLeak), text(Severity::kCorruption)));
  EXPECT_THAT(VocabularyOf("finding", "repair"),
              UnorderedElementsAre(text(RepairClass::kNone), text(RepairClass::kSafe),
                                   text(RepairClass::kAll)));
  EXPECT_THAT(VocabularyOf("finding", "effect"),
              UnorderedElementsAre(text(Effect::kNone), text(Effect::kWrong), text(Effect::kStale),
                                   text(Effect::kZero), text(Effect::kUnreadable)));
  EXPECT_THAT(VocabularyOf("region", "kind"), testing::SizeIs(24));
  EXPECT_THAT(VocabularyOf("region", "kind"), testing::Contains("vm-state"));
}

TEST(SchemaTest, CheckedInPageIsUpToDate) {
  const std::string path = IMGFSCK_SOURCE_DIR "/docs/model.md";
  const std::string expected = ModelMarkdown();
  if (std::getenv("IMGFSCK_RENEW_DOCS") != nullptr) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    ASSERT_TRUE(out << expected << std::flush) << path;
    GTEST_SKIP() << "wrote " << path;
  }
  std::ifstream in(path, std::ios::binary);
  std::ostringstream actual;
  actual << in.rdbuf();
  EXPECT_TRUE(actual.str() == expected)
      << path << " is out of date: run this test with IMGFSCK_RENEW_DOCS=1 and commit the page";
}

class ExampleQueriesTest : public ModelTest {};

TEST_F(ExampleQueriesTest, AnswerTheSameLiveAndFromAFile) {
  ASSERT_GE(ExampleQueries().size(), 10u);
  TempDir dir;
  ASSERT_TRUE(WriteDatabaseFile(dir.File("a.db"), source_));
  auto file = OpenSqlite(dir.File("a.db"), SQLITE_OPEN_READONLY);
  auto live = LiveModel::Open(source_);
  ASSERT_TRUE(file && live);
  for (const ExampleQuery& example : ExampleQueries()) {
    std::string from_live, from_file;
    TextWriter live_out(&from_live), file_out(&from_file);
    EXPECT_TRUE(example.title.ends_with('.') || example.title.find(':') != std::string::npos);
    Status status = RunQuery(**live, example.sql, QueryMode::kJsonl, live_out);
    ASSERT_TRUE(status) << example.sql << status.error().message;
    ASSERT_TRUE(RunQuery(file->get(), example.sql, QueryMode::kJsonl, file_out));
    live_out.Flush();
    file_out.Flush();
    EXPECT_NE(from_live, "") << example.sql;  // the fixture has something for every query
    EXPECT_EQ(from_live, from_file) << example.sql;
  }
}

}  // namespace
}  // namespace imgfsck
