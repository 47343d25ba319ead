// SPDX-License-Identifier: Apache-2.0
// The shapes of `qemu-img map`. The expected JSON below is what qemu-img 7.2 printed for an overlay
// with data, a zero cluster and a compressed cluster over a base; a live comparison with qemu-img
// is in the image tests.
#include "report/map.h"

#include "tests/unit/report/report_fixture.h"

namespace imgfsck {
namespace {

class MapTest : public testing::Test {
 protected:
  std::string Map(MapStyle style, const std::string& layer = "active") {
    std::string text;
    TextWriter out(&text);
    Status status = WriteMap(rows_, layer, style, out);
    EXPECT_TRUE(status);
    EXPECT_TRUE(out.Finish());
    return text;
  }
  void Add(std::string_view layer, uint64_t guest, uint64_t length, MappingState state,
           std::optional<uint64_t> host = std::nullopt, uint32_t flags = 0) {
    rows_.mappings.push_back({layer, guest, length, state, host, std::nullopt, flags});
  }
  FakeRows rows_;
};

TEST_F(MapTest, ChainAsQemuImgPrintsIt) {
  std::string text;
  TextWriter out(&text);
  MapWriter map(MapStyle::kJson, out);
  auto row = [](uint64_t guest, uint64_t length, MappingState state,
                std::optional<uint64_t> host = std::nullopt) {
    return MappingRow{"active", guest, length, state, host, std::nullopt, 0};
  };
  using enum MappingState;
  map.Add(MapEntryOf(row(0, 65536, kData, 327680), 1, true, "b.qcow2"));
  map.Add(MapEntryOf(row(65536, 65536, kUnallocated), 1, true, "b.qcow2"));
  map.Add(MapEntryOf(row(131072, 32768, kData, 327680), 0, false, "a.qcow2"));
  map.Add(MapEntryOf(row(163840, 32768, kData, 360448), 0, false, "a.qcow2"));
  map.Add(MapEntryOf(row(196608, 65536, kUnallocated), 1, true, "b.qcow2"));
  map.Add(MapEntryOf(row(262144, 65536, kZero), 0, false, "a.qcow2"));
  map.Add(MapEntryOf(row(327680, 100000, kUnallocated), 1, true, "b.qcow2"));
  map.Add(MapEntryOf(row(427680, 96608, kUnallocated), 1, true, "b.qcow2"));
  map.Add(MapEntryOf(row(524288, 65536, kCompressed, 400000), 0, false, "a.qcow2"));
  map.Add(MapEntryOf(row(589824, 458752, kUnallocated), 1, true, "b.qcow2"));
  ASSERT_TRUE(map.Finish());
  ASSERT_TRUE(out.Finish());
  EXPECT_EQ(
      text,
      R"([{ "start": 0, "length": 65536, "depth": 1, "present": true, "zero": false, "data": true, "offset": 327680},
{ "start": 65536, "length": 65536, "depth": 1, "present": false, "zero": true, "data": false},
{ "start": 131072, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true, "offset": 327680},
{ "start": 196608, "length": 65536, "depth": 1, "present": false, "zero": true, "data": false},
{ "start": 262144, "length": 65536, "depth": 0, "present": true, "zero": true, "data": false},
{ "start": 327680, "length": 196608, "depth": 1, "present": false, "zero": true, "data": false},
{ "start": 524288, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true},
{ "start": 589824, "length": 458752, "depth": 1, "present": false, "zero": true, "data": false}]
)");
}

TEST_F(MapTest, TextAsQemuImgPrintsIt) {
  rows_.image.path = "a.qcow2";
  Add("active", 0, 0x10000, MappingState::kUnallocated);
  Add("active", 0x10000, 0x10000, MappingState::kZero, 0x70000);
  Add("active", 0x20000, 0x10000, MappingState::kData, 0x50000);
  Add("active", 0x30000, 0x10000, MappingState::kCompressed, 0x60000);
  EXPECT_EQ(Map(MapStyle::kText),
            "Offset          Length          Mapped to       File\n"
            "0x20000         0x10000         0x50000         a.qcow2\n"
            "0x30000         0x10000         -               a.qcow2\n");
}

TEST_F(MapTest, OwnLayerOnlyAndOneLayer) {
  rows_.layers = {"active", "1"};
  Add("active", 0, 512, MappingState::kUnallocated);
  Add("1", 0, 512, MappingState::kZero, 1024);
  EXPECT_EQ(Map(MapStyle::kJson),
            "[{ \"start\": 0, \"length\": 512, \"depth\": 0, \"present\": false, \"zero\": true, "
            "\"data\": false}]\n");
  EXPECT_EQ(Map(MapStyle::kJson, "1"),
            "[{ \"start\": 0, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": true, "
            "\"data\": false, \"offset\": 1024}]\n");
  rows_.links = {{"backing", "base", "", 0, 4}};  // what is not here may be there
  EXPECT_EQ(Map(MapStyle::kJson),
            "[{ \"start\": 0, \"length\": 512, \"depth\": 0, \"present\": false, \"zero\": false, "
            "\"data\": false}]\n");
  std::string text;
  TextWriter out(&text);
  Status status = WriteMap(rows_, "2", MapStyle::kJson, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kNotFound);
}

TEST_F(MapTest, EncryptedBytesHaveNoOffset) {
  Add("active", 0, 512, MappingState::kData, 1024, kMappingEncrypted);
  EXPECT_EQ(Map(MapStyle::kJson),
            "[{ \"start\": 0, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": false, "
            "\"data\": true}]\n");
}

TEST_F(MapTest, EmptyDiskIsAnEmptyList) { EXPECT_EQ(Map(MapStyle::kJson), "[]\n"); }

}  // namespace
}  // namespace imgfsck
