// SPDX-License-Identifier: Apache-2.0
// The live tables: every column, what is asked of the image, what is not, and that a WHERE never
// changes what a row says.
#include "model/live_model.h"

#include <gmock/gmock.h>

#include "base/interrupt.h"
#include "model/query.h"
#include "model/schema.h"
#include "tests/unit/model/model_fixture.h"

namespace imgfsck {
namespace {

class LiveModelTest : public ModelTest {
 protected:
  LiveModel& model() {
    if (model_ == nullptr) {
      auto opened = LiveModel::Open(source_);
      EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
      model_ = std::move(*opened);
    }
    return *model_;
  }
  Status TryQuery(const std::string& sql, std::string* text) {
    text->clear();
    TextWriter out(text);
    return RunQuery(model(), sql, QueryMode::kCsv, out);
  }
  // The answer's rows as CSV, without the heading.
  std::string Ask(const std::string& sql) {
    std::string text;
    Status status = TryQuery(sql, &text);
    EXPECT_TRUE(status) << sql << ": " << (status ? "" : status.error().message);
    return text.substr(std::min(text.size(), text.find('\n') + 1));
  }

  std::unique_ptr<LiveModel> model_;
};

TEST_F(LiveModelTest, EveryTableOfTheSchemaIsThere) {
  for (const SchemaTable& table : Schema()) {
    EXPECT_NE(Ask("SELECT count(*) FROM " + table.name), "") << table.name;
    for (const SchemaColumn& column : table.columns) {
      Ask("SELECT " + column.name + " FROM " + table.name);
    }
  }
  EXPECT_EQ(Ask("PRAGMA user_version"), "1\n");
}

TEST_F(LiveModelTest, SmallTables) {
  EXPECT_EQ(Ask("SELECT image_id, path, format, version, virtual_size, file_size, cluster_size, "
                "allocated, sha256 IS NULL FROM image"),
            "1,it's.qcow2,qcow2,3,5242880,9437184,65536,8388608,1\n");
  EXPECT_EQ(Ask("SELECT structure, host_offset, length, name, value, raw, meaning FROM field"),
            "header,0,4,magic,1363560955,514649fb,QFI\n"
            "header,40,8,l1_table_offset,,8000000000000000,\n");
  EXPECT_EQ(Ask("SELECT id, hex(name), host_offset, l1_offset, l1_entries, date_seconds, "
                "date_nanoseconds, vm_clock_nanoseconds FROM snapshot"),
            "1,61276200630A2E717569740AEFBFBD1B5B324A3B,196608,,0,-5,0,0\n");
  EXPECT_EQ(Ask("SELECT name, granularity, in_use, enabled, consistent FROM bitmap"),
            "backup,65536,0,1,0\n");
  EXPECT_EQ(Ask("SELECT kind, name, format, host_offset, length FROM link"),
            "backing,../base.qcow2,,512,13\n");
}

TEST_F(LiveModelTest, StreamedTables) {
  EXPECT_EQ(Ask("SELECT * FROM mapping WHERE layer = 'active'"),
            "1,active,0,1048576,data,1048576,,1\n"
            "1,active,1048576,524288,zero,,,0\n"
            "1,active,1572864,65536,compressed,2097152,2048,0\n"
            "1,active,1638400,65536,compressed,2099200,2304,0\n"
            "1,active,1703936,1441792,unallocated,,,0\n"
            "1,active,3145728,2097152,data,,,8\n");
  EXPECT_EQ(Ask("SELECT * FROM region"),
            "1,0,65536,header,,\n"
            "1,65536,65536,l1,active,\n"
            "1,1048576,1048576,data,active,0\n"
            "1,2097152,2048,compressed,active,1572864\n"
            "1,1048576,524288,data,1,0\n");
  EXPECT_EQ(Ask("SELECT * FROM refcount"),
            "1,0,131072,1,1,\n"
            "1,3145728,65536,2,1,\n"
            "1,3211264,65536,,0,8000000000000001\n");
  EXPECT_EQ(Ask("SELECT * FROM bitmap_range"), "1,backup,0,65536\n1,backup,262144,131072\n");
}

TEST_F(LiveModelTest, Findings) {
  const std::string code(AllProblems().front().code), what(AllProblems().front().what);
  EXPECT_EQ(Ask("SELECT code, severity, structure, host_offset, length, guest_offset, "
                "guest_length, count, message = '" +
                what +
                ": said \"twice\"', fixed, layer, "
                "confidence, evidence FROM finding WHERE severity = 'corruption'"),
            code + ",corruption,l2[0],1048576,65536,0,65536,1,1,0,active,1,\n");
  EXPECT_EQ(Ask("SELECT guest_offset, count, fixed, layer IS NULL, confidence, evidence, also "
                "FROM finding WHERE severity = 'leak'"),
            ",2,1,1,0.5,looks old,[]\n");
  EXPECT_EQ(Ask("SELECT json_extract(also, '$[0].layer'), json_extract(also, '$[0].guest-length'), "
                "json_extract(also, '$[1].structure') FROM finding WHERE count = 1"),
            "1,65536,l1\n");
}

TEST_F(LiveModelTest, Views) {
  EXPECT_EQ(Ask("SELECT * FROM leaks"), "1,3145728,65536,2,1\n1,3211264,65536,,0\n");
  EXPECT_EQ(Ask("SELECT host_offset, structure, layer, other_structure, other_layer, "
                "other_guest_offset FROM overlaps"),
            "1048576,l2[0],active,l2[1],1,0\n1048576,l2[0],active,l1,,\n");
  source_.refcounts = nullptr;  // a format without counts: leaks are what the check says
  model_.reset();
  EXPECT_EQ(Ask("SELECT * FROM leaks"), "1,3145728,131072,,\n");
}

TEST_F(LiveModelTest, CheckRunsOnlyWhenItsTablesAreAskedAndOnce) {
  Ask("SELECT * FROM mapping, region, image, snapshot, bitmap, field");
  EXPECT_EQ(checks_, 0);
  Ask("SELECT * FROM finding");
  Ask("SELECT count(*) FROM finding, overlaps");
  EXPECT_EQ(checks_, 1);
}

TEST_F(LiveModelTest, LayerAndGuestRangeReachTheImage) {
  Ask("SELECT * FROM mapping WHERE layer = '1' AND guest_offset >= 4096 AND guest_offset < 8192");
  ASSERT_EQ(rows_.mapping_queries.size(), 1u);
  EXPECT_EQ(rows_.mapping_queries[0].layer, "1");
  EXPECT_EQ(rows_.mapping_queries[0].guest_begin, 4095u);
  Ask("SELECT * FROM mapping WHERE guest_at = 5000");
  ASSERT_EQ(rows_.mapping_queries.size(), 3u);  // both layers
  EXPECT_EQ(rows_.mapping_queries[1].guest_begin, 5000u);
  EXPECT_EQ(rows_.mapping_queries[1].guest_end, 5001u);
  Ask("SELECT * FROM region WHERE host_at = 5000");
  EXPECT_EQ(rows_.region_queries.back().host_begin, 5000u);
  EXPECT_EQ(rows_.region_queries.back().host_end, 5001u);
  EXPECT_FALSE(rows_.mapping_queries.back().per_cluster);
  Ask("SELECT * FROM mapping WHERE per_cluster = 1");
  EXPECT_TRUE(rows_.mapping_queries.back().per_cluster);
}

TEST_F(LiveModelTest, ScanStopsBehindTheLastStart) {
  rows_.layers = {"active"};
  rows_.mappings.clear();
  for (uint64_t i = 0; i < 1000; ++i) {
    rows_.mappings.push_back(
        {"active", i * 0x10000, 0x10000, MappingState::kZero, std::nullopt, std::nullopt, 0});
  }
  EXPECT_EQ(Ask("SELECT count(*) FROM mapping WHERE guest_offset <= 655360"), "11\n");
  EXPECT_LE(rows_.mappings_yielded, 15u);
}

// Whatever part of a WHERE is handed to the image, and wherever it cuts its extents there: the
// rows are those of the whole table that meet it.
TEST_F(LiveModelTest, PushedConstraintsChangeNothing) {
  rows_.cut = true;
  const std::vector<std::string> values = {
      "0",       "1",       "1048575", "1048576", "1048577",   "1638400",   "1638401",
      "3145728", "9999999", "-1",      "NULL",    "1048576.0", "1048575.5", "'1048576'"};
  Ask("SELECT 1");
  ASSERT_TRUE(Exec(model().db(),
                   "CREATE TABLE all_mapping AS SELECT * FROM mapping;"
                   "CREATE TABLE all_region AS SELECT * FROM region;"
                   "CREATE TABLE all_refcount AS SELECT * FROM refcount"));
  int compared = 0;
  for (const std::string table : {"mapping", "region", "refcount"}) {
    for (const std::string column : {"guest_offset", "host_offset"}) {
      if (table == "refcount" && column == "guest_offset") continue;
      for (const std::string op : {"=", "<", "<=", ">", ">=", "IS", "<>"}) {
        for (const std::string& value : values) {
          for (const std::string more :
               {"", " AND length > 65536", " AND guest_offset <= 1700000", " AND layer = 'active'",
                " AND layer IN ('1', 'active')", " AND layer = 'ACTIVE' COLLATE NOCASE"}) {
            const std::string_view extra = more;
            if (table != "mapping" && extra.find("layer") != extra.npos) continue;
            if (table == "refcount" && extra.find("guest") != extra.npos) continue;
            const std::string where =
                " WHERE " + column + " " + op + " " + value + more + " ORDER BY 1, 2, 3, 4, 5";
            EXPECT_EQ(Ask("SELECT * FROM " + table + where),
                      Ask("SELECT * FROM all_" + table + where))
                << table << where;
            ++compared;
          }
        }
      }
    }
  }
  EXPECT_GT(compared, 1000);
}

TEST_F(LiveModelTest, OrderByGuestNeedsNoSorting) {
  auto plan = [&](const std::string& rest) {
    Statement statement = std::move(
        *Statement::Prepare(model().db(), "EXPLAIN QUERY PLAN SELECT * FROM mapping " + rest));
    std::string text;
    while (*statement.Step()) text.append(statement.Text(3)).append("\n");
    return text;
  };
  using testing::HasSubstr;
  using testing::Not;
  const auto sorts = HasSubstr("TEMP B-TREE");
  EXPECT_THAT(plan("WHERE layer = 'active' ORDER BY guest_offset"), Not(sorts));
  EXPECT_THAT(plan("WHERE layer = 'active' ORDER BY image_id, layer, guest_offset"), Not(sorts));
  EXPECT_THAT(plan("WHERE layer = 'active' ORDER BY guest_offset DESC"), sorts);
  EXPECT_THAT(plan("WHERE layer = 'active' ORDER BY host_offset"), sorts);
  EXPECT_THAT(plan("ORDER BY guest_offset"), sorts);  // two layers
  rows_.layers = {"active"};
  model_.reset();
  EXPECT_THAT(plan("ORDER BY guest_offset"), Not(sorts));
  rows_.layers = {"active", "\xff", "\xfe"};  // damaged ids that look the same
  model_.reset();
  EXPECT_THAT(plan("WHERE layer = char(65533) ORDER BY guest_offset"), sorts);
  rows_.layers = {"active", "1", "1"};  // damaged: two snapshots with one id
  model_.reset();
  EXPECT_THAT(plan("WHERE layer = '1' ORDER BY guest_offset"), sorts);
  EXPECT_EQ(Ask("SELECT count(*) FROM mapping WHERE layer = '1'"), "2\n");
}

TEST_F(LiveModelTest, PointLookupsJoin) {
  EXPECT_EQ(Ask("SELECT f.structure, m.layer, m.host_offset FROM finding AS f JOIN mapping AS m "
                "ON m.guest_at = f.guest_offset AND m.layer = f.layer"),
            "l2[0],active,1048576\n");
  EXPECT_EQ(Ask("SELECT layer, guest_offset FROM mapping WHERE host_at = 2099300"),
            "active,1638400\n");
  rows_.ignore_range = true;  // a format that yields more than was asked for
  EXPECT_EQ(Ask("SELECT layer, guest_offset, state FROM mapping WHERE guest_at = 1048577"),
            "active,1048576,zero\n1,524288,unallocated\n");
  EXPECT_EQ(Ask("SELECT count(*) FROM mapping WHERE guest_at = -1"), "0\n");
  EXPECT_EQ(Ask("SELECT count(*) FROM mapping WHERE guest_at = NULL"), "0\n");
  EXPECT_EQ(Ask("SELECT count(*) FROM mapping WHERE guest_at = 'x'"), "0\n");
}

TEST_F(LiveModelTest, ErrorsOfTheImageComeThrough) {
  rows_.fail = Error{ErrorCode::kIo, "the disk is gone", 4711};
  std::string text;
  Status status = TryQuery("SELECT * FROM mapping", &text);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_EQ(status.error().message, "the disk is gone");
  EXPECT_EQ(status.error().offset, 4711u);
  status = TryQuery("SELECT nonsense", &text);  // and do not stick
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalid);
}

TEST_F(LiveModelTest, FailedCheckIsAnErrorEveryTime) {
  source_.findings = [this]() -> Result<const Findings*> {
    ++checks_;
    return Error{ErrorCode::kOutOfMemory, "no memory", {}};
  };
  for (int i = 0; i < 2; ++i) {
    std::string text;
    Status status = TryQuery("SELECT * FROM finding", &text);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kOutOfMemory);
  }
  EXPECT_EQ(checks_, 1);
}

TEST_F(LiveModelTest, StopRequestEndsAQuery) {
  model();
  RequestStop();
  std::string text;
  Status of_table = TryQuery("SELECT * FROM mapping", &text);
  Status of_sqlite = TryQuery(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
      &text);
  ClearStopRequest();
  ASSERT_FALSE(of_table);
  EXPECT_EQ(of_table.error().code, ErrorCode::kInterrupted);
  ASSERT_FALSE(of_sqlite);
  EXPECT_EQ(of_sqlite.error().code, ErrorCode::kInterrupted);
}

}  // namespace
}  // namespace imgfsck
