// SPDX-License-Identifier: Apache-2.0
// The model as a database file and as an SQL script: both say the same, and nothing half-written
// is left behind.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>

#include "base/interrupt.h"
#include "model/database_file.h"
#include "model/query.h"
#include "model/schema.h"
#include "model/sql_script.h"
#include "tests/unit/io/temp_dir.h"
#include "tests/unit/model/model_fixture.h"

namespace imgfsck {
namespace {

class ExportTest : public ModelTest {
 protected:
  // Everything in a database, types included, and its schema.
  std::string Content(sqlite3* db) {
    std::string text;
    TextWriter out(&text);
    auto ask = [&](const std::string& sql) {
      Status status = RunQuery(db, sql, QueryMode::kJsonl, out);
      EXPECT_TRUE(status) << sql << (status ? "" : status.error().message);
    };
    ask("PRAGMA user_version; SELECT type, name, sql FROM sqlite_master ORDER BY name");
    for (const SchemaTable& table : Schema()) {
      std::string columns = "image_id";
      for (const SchemaColumn& column : table.columns) {
        columns += ", " + column.name + ", typeof(" + column.name + "), hex(" + column.name + ")";
      }
      ask("SELECT " + columns + " FROM " + table.name + (table.is_view ? "" : " ORDER BY rowid"));
    }
    out.Flush();
    return text;
  }
  std::string FileContent(const std::string& path) {
    auto db = OpenSqlite(path, SQLITE_OPEN_READONLY);
    EXPECT_TRUE(db);
    return db ? Content(db->get()) : "";
  }
  std::string Script(std::span<const ModelSource> sources) {
    std::string text;
    TextWriter out(&text);
    EXPECT_TRUE(WriteSqlScript(sources, out));
    EXPECT_TRUE(out.Finish());
    return text;
  }

  TempDir dir_;
};

TEST_F(ExportTest, FileHasWhatTheLiveModelHas) {
  const std::string path = dir_.File("a.db");
  ASSERT_TRUE(WriteDatabaseFile(path, source_));
  EXPECT_EQ(dir_.Entries(), 1u);
  auto live = LiveModel::Open(source_);
  ASSERT_TRUE(live);
  auto file = OpenSqlite(path, SQLITE_OPEN_READONLY);
  ASSERT_TRUE(file);
  for (const SchemaTable& table : Schema()) {
    std::string from_file, from_live;
    TextWriter file_out(&from_file), live_out(&from_live);
    const std::string sql = "SELECT * FROM " + table.name;
    ASSERT_TRUE(RunQuery(file->get(), sql, QueryMode::kJson, file_out));
    ASSERT_TRUE(RunQuery(**live, sql, QueryMode::kJson, live_out));
    file_out.Flush();
    live_out.Flush();
    EXPECT_EQ(from_file, from_live) << table.name;
    EXPECT_NE(from_file, "[]\n") << table.name;
  }
  EXPECT_THAT(FileContent(path), testing::HasSubstr("{\"user_version\": 1}"));
}

TEST_F(ExportTest, ScriptThroughSqlite3MakesTheSameDatabase) {
  const std::string path = dir_.File("a.db"), piped = dir_.File("b.db");
  ASSERT_TRUE(WriteDatabaseFile(path, source_));
  const std::string command = "sqlite3 -bail '" + piped + "'";
  FILE* shell = popen(command.c_str(), "w");
  ASSERT_NE(shell, nullptr);
  const std::string script = Script({&source_, 1});
  EXPECT_EQ(fwrite(script.data(), 1, script.size(), shell), script.size());
  ASSERT_EQ(pclose(shell), 0);
  EXPECT_EQ(FileContent(path), FileContent(piped));
  for (char c : script) EXPECT_TRUE(c == '\n' || static_cast<uint8_t>(c) >= ' ') << int{c};
}

TEST_F(ExportTest, ManyRowsMeanManyStatementsAndTheSameContent) {
  rows_.mappings.clear();
  for (uint64_t i = 0; i < 1001; ++i) {
    rows_.mappings.push_back(
        {"active", i * 512, 512, MappingState::kZero, std::nullopt, std::nullopt, 0});
  }
  const std::string script = Script({&source_, 1});
  auto db = OpenSqlite(":memory:", SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(db);
  ASSERT_TRUE(Exec(db->get(), script));
  ASSERT_TRUE(WriteDatabaseFile(dir_.File("a.db"), source_));
  EXPECT_EQ(Content(db->get()), FileContent(dir_.File("a.db")));
}

TEST_F(ExportTest, ManyImagesInOneDatabase) {
  FakeRows other = rows_;
  other.image.path = "other";
  other.mappings.pop_back();
  std::vector<ModelSource> sources = {source_, source_};
  sources[1].rows = &other;
  sources[1].image_id = 2;
  sources[1].sha256 = "abcd";
  auto file = DatabaseFile::Create(dir_.File("a.db"));
  ASSERT_TRUE(file);
  for (const ModelSource& source : sources) ASSERT_TRUE((*file)->Add(source));
  ASSERT_TRUE((*file)->Finish());
  auto db = OpenSqlite(":memory:", SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(db);
  ASSERT_TRUE(Exec(db->get(), Script(sources)));
  const std::string content = FileContent(dir_.File("a.db"));
  EXPECT_EQ(Content(db->get()), content);
  std::string counts;
  TextWriter out(&counts);
  ASSERT_TRUE(RunQuery(db->get(),
                       "SELECT image_id, count(*), sha256 FROM mapping JOIN image "
                       "USING (image_id) GROUP BY 1",
                       QueryMode::kCsv, out));
  out.Flush();
  EXPECT_EQ(counts, "image_id,count(*),sha256\n1,8,\n2,7,abcd\n");
}

TEST_F(ExportTest, ExistingFileIsRefusedAndUntouched) {
  const std::string path = dir_.Put("a.db", "precious");
  Status status = WriteDatabaseFile(path, source_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kExists);
  EXPECT_EQ(dir_.Get("a.db"), "precious");
  std::filesystem::create_symlink("nowhere", dir_.File("link.db"));
  EXPECT_FALSE(WriteDatabaseFile(dir_.File("link.db"), source_));
  EXPECT_EQ(dir_.Entries(), 2u);
}

TEST_F(ExportTest, FileThatAppearsMeanwhileIsNotOverwritten) {
  auto file = DatabaseFile::Create(dir_.File("a.db"));
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->Add(source_));
  dir_.Put("a.db", "precious");
  EXPECT_FALSE((*file)->Finish());
  file->reset();
  EXPECT_EQ(dir_.Get("a.db"), "precious");
  EXPECT_EQ(dir_.Entries(), 1u);
}

TEST_F(ExportTest, FailureAndStopLeaveNothing) {
  rows_.fail = Error{ErrorCode::kIo, "the disk is gone", {}};
  Status status = WriteDatabaseFile(dir_.File("a.db"), source_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "the disk is gone");
  std::string text;
  TextWriter out(&text);
  status = WriteSqlScript({&source_, 1}, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  rows_.fail = Ok();
  RequestStop();
  status = WriteDatabaseFile(dir_.File("a.db"), source_);
  ClearStopRequest();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(dir_.Entries(), 0u);
  EXPECT_FALSE(WriteDatabaseFile(dir_.File("no/such/folder/a.db"), source_));
}

TEST_F(ExportTest, FileHasTheUsualPermissions) {
  const mode_t before = umask(027);
  ASSERT_TRUE(WriteDatabaseFile(dir_.File("a.db"), source_));
  umask(before);
  struct stat info;
  ASSERT_EQ(stat(dir_.File("a.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

}  // namespace
}  // namespace imgfsck
