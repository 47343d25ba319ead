// SPDX-License-Identifier: Apache-2.0
// imgdump's page, as text and as JSON, and the annotated hexdump.
#include "report/dump.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "io/byte_source.h"
#include "report/hexdump.h"
#include "tests/unit/report/report_fixture.h"

namespace imgfsck {
namespace {

using testing::HasSubstr;

class DumpTest : public testing::Test {
 protected:
  DumpTest() {
    rows_.image = {"a\x1b.qcow2", "qcow2", "3", 20 * kGiB, 4096, 65536, 8192};
    rows_.fields = {{"header", "magic", 0, 4, 0x514649fb, "514649fb", "QFI\\xfb"},
                    {"header", "l1_table_offset", 40, 8, std::nullopt, "ffffffffffffffff", ""},
                    {"extension[0]", "type", 104, 4, 1, "00000001", ""}};
    SnapshotRow snapshot;
    snapshot.id = "1";
    snapshot.name = "old\n";
    snapshot.date_seconds = 1714564800;
    snapshot.virtual_size = kGiB;
    rows_.snapshots = {snapshot};
    BitmapRow bitmap;
    bitmap.name = "b0";
    bitmap.granularity = 65536;
    bitmap.in_use = true;
    rows_.bitmaps = {bitmap};
    rows_.links = {{"backing", "base\x07", "raw", 512, 5}};
    rows_.structures = {{"header", MakeHostRange(0, 112)}, {"l1", MakeHostRange(0x30000, 8)}};
    rows_.regions = {{0, 65536, "header", "", std::nullopt},
                     {65536, 1000, "data", "active", 0},
                     {65536, 24, "data", "1", 0}};
  }
  FakeRows rows_;
};

TEST_F(DumpTest, Text) {
  std::string text;
  TextWriter out(&text);
  ASSERT_TRUE(WriteDumpText(rows_, out));
  ASSERT_TRUE(out.Finish());
  EXPECT_EQ(text, R"(a\x1b.qcow2: qcow2 (3)
  guest disk    20 GiB (21474836480 bytes)
  file          4 KiB (4096 bytes), 8 KiB on the host
  cluster       64 KiB

header
  0x00000000   4  magic                        1363560955  QFI\xfb
  0x00000028   8  l1_table_offset              0xffffffffffffffff

extension[0]
  0x00000068   4  type                         1

snapshots
  1 "old\x0a", 2024-05-01 12:00:00 UTC, disk of 1 GiB, VM state of 0 B, L1 at 0x0 with 0 entries

dirty bitmaps
  "b0", a bit for 64 KiB, disabled, in use (not closed properly), not to be relied on, table at 0x0 with 0 entries

other files that it names (not opened)
  backing    "base\x07", format raw, named at 0x200

structures (imgdump --hex NAME)
  header                   0x0-0x6f (112 B)
  l1                       0x30000-0x30007 (8 B)

space in the file (what snapshots share counts for each)
  header                 64 KiB  1 range
  data                    1 KiB  2 ranges
)");
}

TEST_F(DumpTest, AbsurdDatesDoNoHarm) {
  for (int64_t date : {INT64_MIN, int64_t{-1}, INT64_MAX}) {
    rows_.snapshots[0].date_seconds = date;
    std::string text;
    TextWriter out(&text);
    ASSERT_TRUE(WriteDumpText(rows_, out));
    ASSERT_TRUE(out.Finish());
    EXPECT_THAT(text, HasSubstr(std::to_string(date)));
  }
}

TEST_F(DumpTest, Json) {
  std::string text;
  TextWriter out(&text);
  ASSERT_TRUE(WriteDumpJson(rows_, out));
  ASSERT_TRUE(out.Finish());
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(text), nlohmann::json::parse(R"({
    "filename": "a\u001b.qcow2", "format": "qcow2", "format-version": "3",
    "virtual-size": 21474836480, "file-size": 4096, "cluster-size": 65536, "allocated": 8192,
    "fields": [
      {"structure": "header", "name": "magic", "host-offset": 0, "length": 4,
       "value": 1363560955, "raw": "514649fb", "meaning": "QFI\\xfb"},
      {"structure": "header", "name": "l1_table_offset", "host-offset": 40, "length": 8,
       "value": null, "raw": "ffffffffffffffff", "meaning": ""},
      {"structure": "extension[0]", "name": "type", "host-offset": 104, "length": 4, "value": 1,
       "raw": "00000001", "meaning": ""}],
    "snapshots": [{"id": "1", "name": "old\n", "host-offset": 0, "l1-offset": 0, "l1-entries": 0,
      "virtual-size": 1073741824, "vm-state-size": 0, "date-seconds": 1714564800,
      "date-nanoseconds": 0, "vm-clock-nanoseconds": 0}],
    "bitmaps": [{"name": "b0", "host-offset": 0, "granularity": 65536, "table-offset": 0,
      "table-entries": 0, "in-use": true, "enabled": false, "consistent": false}],
    "links": [{"kind": "backing", "name": "base\u0007", "format": "raw", "host-offset": 512,
      "length": 5}],
    "structures": [{"name": "header", "host-offset": 0, "length": 112},
                   {"name": "l1", "host-offset": 196608, "length": 8}],
    "space": [{"kind": "header", "ranges": 1, "bytes": 65536},
              {"kind": "data", "ranges": 2, "bytes": 1024}]})"));
}

class HexdumpTest : public testing::Test {
 protected:
  std::string Dump(const ByteSource& source, HostRange range, std::vector<FieldRow> fields = {}) {
    std::string text;
    TextWriter out(&text);
    EXPECT_TRUE(WriteHexdump(source, {"header", range}, fields, out));
    EXPECT_TRUE(out.Finish());
    return text;
  }
};

TEST_F(HexdumpTest, FieldsHaveLinesOfTheirOwn) {
  MemoryStore store(ByteVector{'Q', 'F', 'I', 0xfb, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6});
  const std::vector<FieldRow> fields = {{"header", "version", 4, 4, 3, "", ""},
                                        {"header", "magic", 0, 4, 7, "", "QFI\x1b"},
                                        {"header", "inside", 5, 1, 0, "", "not shown"},
                                        {"other", "beyond", 100, 4, 0, "", ""}};
  EXPECT_EQ(
      Dump(store, MakeHostRange(0, 14), fields),
      "header: 0x0-0xd (14 B)\n"
      "00000000  51 46 49 fb                                       |QFI.|              magic = 7 "
      "(QFI\\x1b)\n"
      "00000004  00 00 00 03                                       |....|              version = "
      "3\n"
      "00000008  01 02 03 04 05 06                                 |......|\n");
}

TEST_F(HexdumpTest, RepeatedLinesAreOneStar) {
  MemoryStore store(ByteVector(100));
  EXPECT_EQ(Dump(store, MakeHostRange(0, 100)),
            "header: 0x0-0x63 (100 B)\n"
            "00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
            "*\n"
            "00000060  00 00 00 00                                       |....|\n");
}

TEST_F(HexdumpTest, EndOfTheFileIsSaid) {
  MemoryStore store(ByteVector(4));
  EXPECT_EQ(Dump(store, MakeHostRange(2, 100)),
            "header: 0x2-0x65 (100 B)\n"
            "00000002  00 00                                             |..|\n"
            "00000004  the file ends here, 98 B before the end of header\n");
  EXPECT_THAT(Dump(store, MakeHostRange(UINT64_MAX - 1, 100)), HasSubstr("the file ends here, "));
}

class BrokenStore : public MemoryStore {
 public:
  using MemoryStore::MemoryStore;
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
    if (offset < 1024 && offset + buffer.size() > 512) {
      return Error{ErrorCode::kIo, "cannot read sector 1", 512};
    }
    return MemoryStore::ReadAt(offset, buffer);
  }
};

TEST_F(HexdumpTest, UnreadableSectorsDoNotHideTheRest) {
  BrokenStore store(ByteVector(2048, 'x'));
  const std::string text = Dump(store, MakeHostRange(0, 2048));
  EXPECT_THAT(text, HasSubstr("\n00000200  cannot be read for 512 B: cannot read sector 1\n"));
  EXPECT_THAT(text, HasSubstr("\n00000400  78 78"));
}

TEST_F(HexdumpTest, StructuresAreFoundByNameAndTablesWhole) {
  FakeRows rows;
  rows.structures = {{"l1", {}}, {"l2[0]", {}}, {"l2[1]", {}}, {"l20", {}}};
  EXPECT_EQ(FindStructures(rows, "l2").size(), 2u);
  EXPECT_EQ(FindStructures(rows, "l2[1]").size(), 1u);
  EXPECT_EQ(FindStructures(rows, "l1").size(), 1u);
  EXPECT_TRUE(FindStructures(rows, "l").empty());
}

}  // namespace
}  // namespace imgfsck
