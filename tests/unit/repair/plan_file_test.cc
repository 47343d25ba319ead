// SPDX-License-Identifier: Apache-2.0
#include "repair/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/base64.h"
#include "io/sha256.h"
#include "tests/unit/bytes.h"
#include "tests/unit/io/temp_dir.h"
#include "tests/unit/repair/toy.h"

namespace imgfsck {
namespace {

using testing::HasSubstr;

constexpr std::array kPasses = {
    Pass{"counts", 1, "recompute counts", toy::WantsCounts, toy::MendCounts}};
const Repairer kRepairer{"toy", kPasses, nullptr};
const RepairKit kKit{&kRepairer, toy::Check};
const Format kToyFormat{"toy", {}, "", nullptr, nullptr, nullptr, nullptr, {}};

ByteVector DamagedImage() {
  ByteVector image = toy::SoundImage();
  image[toy::CountOf(3)] = 0;
  image[toy::CountOf(9)] = 4;
  return image;
}

class PlanFile : public testing::Test {
 protected:
  PlanFile() : path_(folder_.File("plan.json")) {
    MemoryStore source(DamagedImage());
    auto plan = MakePlan(source, kKit, {});
    EXPECT_TRUE(plan);
    auto written = WritePlanFile(*plan, path_, "/images/disk.toy", RepairMode::kSafe);
    EXPECT_TRUE(written) << written.error().message;
    std::ifstream file(path_, std::ios::binary);
    text_ = {std::istreambuf_iterator<char>(file), {}};
  }

  Result<Plan> Load(const ByteVector& image) {
    source_ = std::make_unique<MemoryStore>(image);
    return LoadPlanFile(path_, *source_, kToyFormat, kKit);
  }
  Error RefusalOf(const std::string& text) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << text;
    auto plan = Load(DamagedImage());
    EXPECT_FALSE(plan);
    return plan ? Error{} : plan.error();
  }
  // With a hash that fits: what somebody who wants to do harm would write.
  Error RefusalOfForged(std::string text) {
    text.resize(text.rfind(", \"sha256\""));
    const std::string hash = HexSha256(AsBytes(text));
    return RefusalOf(text + ", \"sha256\": \"" + hash + "\"}\n");
  }
  std::string With(const std::string& from, const std::string& to) const {
    std::string text = text_;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
  }

  TempDir folder_;
  std::string path_, text_;
  std::unique_ptr<MemoryStore> source_;
};

TEST_F(PlanFile, AppliesExactly) {
  auto plan = Load(DamagedImage());
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(BytesOf(*plan->overlay), toy::SoundImage());
  EXPECT_EQ(plan->patches, 2u);
  EXPECT_EQ(plan->passes.size(), 1u);
  EXPECT_EQ(plan->passes[0].name, "counts");
  EXPECT_TRUE(plan->Final().findings.empty());
  EXPECT_FALSE(plan->before.findings.empty());
}

TEST_F(PlanFile, NamesTheImageWithoutItsFolder) {
  EXPECT_THAT(text_, HasSubstr("\"name\": \"disk.toy\""));
  EXPECT_THAT(text_, HasSubstr("qcow2-refcount-low"));
}

TEST_F(PlanFile, OverwritesNothing) {
  MemoryStore source(DamagedImage());
  auto plan = MakePlan(source, kKit, {});
  ASSERT_TRUE(plan);
  auto again = WritePlanFile(*plan, path_, "disk", RepairMode::kSafe);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
}

TEST_F(PlanFile, RefusesWhenOnePreImageDiffers) {
  ByteVector image = DamagedImage();
  image[toy::CountOf(9)] = 3;
  auto plan = Load(image);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kConflict);
  EXPECT_EQ(plan.error().offset, toy::CountOf(9));
  plan = Load(toy::SoundImage());  // applied already
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kConflict);
}

TEST_F(PlanFile, RefusesAnImageOfAnotherLength) {
  ByteVector image = DamagedImage();
  image.push_back(0);
  EXPECT_EQ(Load(image).error().code, ErrorCode::kConflict);
}

TEST_F(PlanFile, AcceptsChangesElsewhere) {
  ByteVector image = DamagedImage();
  image[7 * kSector] = 0x99;
  EXPECT_TRUE(Load(image));
}

TEST_F(PlanFile, EveryFlippedByteIsNoticed) {
  for (size_t at = 0; at < text_.size(); at += 7) {
    std::string text = text_;
    text[at] = static_cast<char>(text[at] ^ 1);
    EXPECT_EQ(RefusalOf(text).code, ErrorCode::kInvalid) << at;
  }
}

TEST_F(PlanFile, EveryCutFileIsRefused) {
  for (size_t length = 0; length < text_.size(); length += 13) {
    EXPECT_EQ(RefusalOf(text_.substr(0, length)).code, ErrorCode::kInvalid) << length;
  }
}

TEST_F(PlanFile, ForgedFilesAreRefusedByWhatTheySay) {
  EXPECT_EQ(RefusalOfForged(With("\"imgfsck-plan\": 1", "\"imgfsck-plan\": 2")).code,
            ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"patches\": [", "\"patches\": 7, \"x\": [")).code,
            ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"offset\": ", "\"offset\": -")).code, ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"offset\": ", "\"offset\": 99999999999999")).code,
            ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"old-length\": 1", "\"old-length\": 2")).code,
            ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"new\": \"", "\"new\": \"*")).code, ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"new-size\": ", "\"new-size\": 9999999999999999")).code,
            ErrorCode::kInvalid);
  EXPECT_EQ(RefusalOfForged(With("\"format\": \"toy\"", "\"format\": \"vpc\"")).code,
            ErrorCode::kConflict);
  EXPECT_EQ(RefusalOfForged("[" + std::string(100000, '[') + ", \"sha256\"").code,
            ErrorCode::kInvalid);
}

TEST_F(PlanFile, APlanThatDoesHarmIsRefused) {
  // The second patch's new byte, 0, becomes 5: a count that nobody refers to.
  const std::string zero = Base64Encode(ByteVector{0}), five = Base64Encode(ByteVector{5});
  std::string text = With("\"new\": \"" + zero, "\"new\": \"" + five);
  EXPECT_NE(text, text_);
  // It was wrong before at that place, so it is no new problem: but then it is not mended either.
  text.resize(text.rfind(", \"sha256\""));
  std::ofstream(path_, std::ios::binary | std::ios::trunc)
      << text << ", \"sha256\": \"" << HexSha256(AsBytes(text)) << "\"}\n";
  auto plan = Load(DamagedImage());
  ASSERT_TRUE(plan);
  EXPECT_FALSE(plan->Final().findings.empty());
  // A patch of the signature instead is a new problem.
  const std::string counts_offset = std::to_string(toy::CountOf(3));
  ByteVector image = DamagedImage();
  std::string harmful = With("\"offset\": " + counts_offset, "\"offset\": 0");
  const std::string old_hash = HexSha256(Bytes(image).subspan(toy::CountOf(3), 1));
  const size_t at = harmful.find(old_hash);
  ASSERT_NE(at, std::string::npos);
  harmful.replace(at, 64, HexSha256(Bytes(image).first(1)));
  const Error refusal = RefusalOfForged(harmful);
  EXPECT_EQ(refusal.code, ErrorCode::kConflict);
  EXPECT_THAT(refusal.message, HasSubstr("new problem"));
}

TEST(Base64, IsStrictAndReversible) {
  ByteVector bytes, back;
  for (int i = 0; i < 300; ++i) {
    EXPECT_TRUE(Base64Decode(Base64Encode(bytes), &back));
    EXPECT_EQ(back, bytes);
    bytes.push_back(static_cast<uint8_t>(i * 37));
  }
  EXPECT_EQ(Base64Encode(AsBytes("foobar")), "Zm9vYmFy");
  EXPECT_EQ(Base64Encode(AsBytes("fooba")), "Zm9vYmE=");
  EXPECT_EQ(Base64Encode(AsBytes("foob")), "Zm9vYg==");
  for (const char* wrong : {"Z", "Zm9", "Zm9v=", "Zm=v", "=m9v",
                            "Z===", "====", "Zm9vYh==", "Zm9vYmF=", "Zm 9", "Zm9v\n"}) {
    EXPECT_FALSE(Base64Decode(wrong, &back)) << wrong;
  }
}

}  // namespace
}  // namespace imgfsck
