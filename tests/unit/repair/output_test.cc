// SPDX-License-Identifier: Apache-2.0
#include "repair/output.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/interrupt.h"
#include "io/bad_ranges.h"
#include "io/file.h"
#include "tests/unit/fake_rows.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

ByteVector Sparse() {
  ByteVector bytes(3 * kMiB + 100);
  bytes[5] = 1;
  bytes[2 * kMiB] = 2;
  bytes.back() = 3;
  return bytes;
}

TEST(Output, CopiesBytesAndMakesHoles) {
  TempDir folder;
  const ByteVector bytes = Sparse();
  MemoryStore image(bytes);
  auto written = WriteOutput(image, folder.File("copy"));
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(written->unreadable, 0u);
  EXPECT_EQ(folder.Get("copy"), AsText(bytes));
  EXPECT_EQ(folder.Entries(), 1u);
  auto file = FileSource::Open(folder.File("copy"));
  ASSERT_TRUE(file);
  EXPECT_LE(AllocatedBytes((*file)->fd()).value(), 64 * kKiB);
}

TEST(Output, AnEmptyImageIsAnEmptyFile) {
  TempDir folder;
  ASSERT_TRUE(WriteOutput(MemoryStore(), folder.File("copy")));
  EXPECT_EQ(folder.Get("copy"), "");
  EXPECT_EQ(folder.Entries(), 1u);
}

TEST(Output, NeverOverwrites) {
  TempDir folder;
  folder.Put("copy", "mine");
  auto refused = WriteOutput(MemoryStore(Sparse()), folder.File("copy"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExists);
  EXPECT_EQ(folder.Get("copy"), "mine");
  std::filesystem::create_symlink("nowhere", folder.File("link"));
  EXPECT_FALSE(WriteOutput(MemoryStore(Sparse()), folder.File("link")));
  EXPECT_EQ(folder.Entries(), 2u);
}

TEST(Output, LeavesNothingAfterAStop) {
  TempDir folder;
  RequestStop();
  auto stopped = WriteOutput(MemoryStore(Sparse()), folder.File("copy"));
  ClearStopRequest();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(folder.Entries(), 0u);
}

TEST(Output, LeavesNothingWithoutSpace) {
  TempDir folder;
  class Huge : public ByteSource {
   public:
    uint64_t Size() const override { return uint64_t{1} << 60; }
    Result<size_t> ReadAt(uint64_t, MutableBytes) const override { return size_t{0}; }
  };
  auto refused = WriteOutput(Huge(), folder.File("copy"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(folder.Entries(), 0u);
}

TEST(Output, UnreadableSectorsBecomeZerosAndAreCounted) {
  TempDir folder;
  ByteVector bytes(64 * kKiB, 7);
  MemoryStore medium(bytes);
  BadRangeSource image(medium, {MakeHostRange(kSector, 2 * kSector)});
  auto written = WriteOutput(image, folder.File("copy"));
  ASSERT_TRUE(written);
  EXPECT_EQ(written->unreadable, 2 * kSector);
  EXPECT_EQ(written->notes.size(), 1u);
  std::fill_n(bytes.begin() + kSector, 2 * kSector, uint8_t{0});
  EXPECT_EQ(folder.Get("copy"), AsText(bytes));
}

TEST(Output, RelativeNamesMatterInAnotherFolderOnly) {
  TempDir folder;
  std::filesystem::create_directory(folder.File("other"));
  FakeRows rows;
  rows.links = {{"backing", "base.img", "", 0, 0},     {"backing", "/images/base.img", "", 0, 0},
                {"backing", "nbd://host/x", "", 0, 0}, {"backing", "json:{}", "", 0, 0},
                {"backing", "sub/a:b", "", 0, 0},      {"data-file", "data.raw", "", 0, 0}};
  const std::string image = folder.File("image");
  EXPECT_TRUE(NamesThatChangeMeaning(rows, image, folder.File("copy")).empty());
  EXPECT_TRUE(NamesThatChangeMeaning(rows, image, folder.File("other/../copy")).empty());
  const auto names = NamesThatChangeMeaning(rows, image, folder.File("other/copy"));
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[0].name, "base.img");
  EXPECT_EQ(names[1].name, "sub/a:b");
}

}  // namespace
}  // namespace imgfsck
