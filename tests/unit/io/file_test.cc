// SPDX-License-Identifier: Apache-2.0
#include "io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "temp_dir.h"

namespace imgfsck {
namespace {

std::string ReadText(const ByteSource& source, uint64_t offset, size_t length) {
  ByteVector buffer(length);
  auto got = source.ReadAt(offset, buffer);
  EXPECT_TRUE(got) << got.error().message;
  return std::string(AsText(Bytes(buffer).first(got.value_or(0))));
}

TEST(FileSource, ReadsInsideAcrossAndPastTheEnd) {
  TempDir dir;
  auto file = FileSource::Open(dir.Put("a", "0123456789"));
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->Size(), 10u);
  EXPECT_FALSE((*file)->is_block_device());
  EXPECT_EQ(ReadText(**file, 2, 3), "234");
  EXPECT_EQ(ReadText(**file, 8, 5), "89");
  EXPECT_EQ(ReadText(**file, 10, 5), "");
  EXPECT_EQ(ReadText(**file, UINT64_MAX, 5), "");
}

TEST(FileSource, HelpersPadOrInsist) {
  TempDir dir;
  auto file = FileSource::Open(dir.Put("a", "0123456789"));
  ASSERT_TRUE(file);
  ByteVector buffer(4, 0xAA);
  ASSERT_TRUE(ReadPadded(**file, 8, buffer));
  EXPECT_EQ(buffer, (ByteVector{'8', '9', 0, 0}));
  auto status = ReadExact(**file, 8, buffer);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(status.error().offset, 10u);
  EXPECT_TRUE(ReadExact(**file, 6, buffer));
}

TEST(FileSource, RefusesWhatIsNoFileWithoutBlocking) {
  TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  dir.File("sock").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(fd);
  const std::pair<std::string, std::string> cases[] = {{dir.File("fifo"), "FIFO"},
                                                       {dir.path(), "directory"},
                                                       {dir.File("sock"), "socket"},
                                                       {"/dev/zero", "character device"}};
  const auto start = std::chrono::steady_clock::now();
  for (const auto& [path, word] : cases) {
    auto source = FileSource::Open(path);
    ASSERT_FALSE(source) << path;
    EXPECT_EQ(source.error().code, ErrorCode::kInvalid);
    EXPECT_NE(source.error().message.find(word), std::string::npos) << source.error().message;
    auto store = FileStore::Open(path, FileStore::Mode::kExisting);
    ASSERT_FALSE(store) << path;
    EXPECT_EQ(store.error().code, ErrorCode::kInvalid);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(FileSource, MissingFileIsNotFound) {
  auto file = FileSource::Open("/nonexistent/\x1b[31mimage");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(file.error().message.find('\x1b'), std::string::npos);
}

TEST(FileSource, KeepsTheAccessTime) {
  TempDir dir;
  const std::string path = dir.Put("a", "content");
  const timespec times[2] = {{1000, 0}, {2000000000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  auto file = FileSource::Open(path);
  ASSERT_TRUE(file);
  EXPECT_EQ(ReadText(**file, 0, 7), "content");
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_atim.tv_sec, 1000);
}

TEST(FileSource, ExtentsFollowHoles) {
  TempDir dir;
  auto store = FileStore::Open(dir.File("sparse"), FileStore::Mode::kCreateNew);
  ASSERT_TRUE(store);
  ASSERT_TRUE((*store)->SetSize(3 * kMiB));
  ASSERT_TRUE((*store)->WriteAt(kMiB, ByteVector(kMiB, 7)));
  auto source = FileSource::Open(dir.File("sparse"));
  ASSERT_TRUE(source);
  // Whatever the granularity, the runs cover the file and the data is never called a hole.
  uint64_t offset = 0, holes = 0;
  while (offset < (*source)->Size()) {
    auto extent = (*source)->ExtentAt(offset);
    ASSERT_TRUE(extent);
    ASSERT_EQ(extent->offset, offset);
    ASSERT_GT(extent->length, 0u);
    if (extent->hole) {
      EXPECT_TRUE(offset + extent->length <= kMiB || offset >= 2 * kMiB);
      holes += extent->length;
    }
    offset += extent->length;
  }
  EXPECT_EQ(offset, 3 * kMiB);
  EXPECT_LE(holes, 2 * kMiB);
  EXPECT_FALSE((*source)->ExtentAt(3 * kMiB));
}

TEST(FileSource, IdentityNoticesAChange) {
  TempDir dir;
  const std::string path = dir.Put("a", "one");
  auto source = FileSource::Open(path);
  ASSERT_TRUE(source);
  auto before = (*source)->Identity();
  ASSERT_TRUE(before);
  EXPECT_EQ(before->size, 3u);
  EXPECT_EQ(*before, *(*source)->Identity());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  dir.Put("a", "longer");
  auto after = (*source)->Identity();
  ASSERT_TRUE(after);
  EXPECT_NE(*before, *after);
  EXPECT_EQ(after->size, 6u);
}

TEST(FileStore, WritesGrowsShrinksAndZeroes) {
  TempDir dir;
  auto store = FileStore::Open(dir.File("a"), FileStore::Mode::kCreateNew);
  ASSERT_TRUE(store);
  ASSERT_TRUE((*store)->WriteAt(5, AsBytes("abc")));
  EXPECT_EQ((*store)->Size(), 8u);
  ASSERT_TRUE((*store)->WriteAt(0, AsBytes("")));
  ASSERT_TRUE((*store)->SetSize(7));
  ASSERT_TRUE((*store)->SetSize(9));
  ASSERT_TRUE((*store)->WriteZeros(6, 6));
  ASSERT_TRUE((*store)->Sync());
  EXPECT_EQ((*store)->Size(), 12u);
  EXPECT_EQ(dir.Get("a"), std::string("\0\0\0\0\0a\0\0\0\0\0\0", 12));
  EXPECT_TRUE(SyncDirectoryOf(dir.File("a")));
}

TEST(FileStore, ZeroesGiveSpaceBack) {
  TempDir dir;
  auto store = FileStore::Open(dir.File("a"), FileStore::Mode::kCreateNew);
  ASSERT_TRUE(store);
  ASSERT_TRUE((*store)->WriteAt(0, ByteVector(kMiB, 0xFF)));
  ASSERT_TRUE((*store)->Sync());
  ASSERT_TRUE((*store)->WriteZeros(1, kMiB - 2));
  std::string expected(kMiB, '\0');
  expected.front() = expected.back() = '\xFF';
  EXPECT_EQ(dir.Get("a"), expected);
  auto allocated = AllocatedBytes((*store)->fd());
  ASSERT_TRUE(allocated);
  EXPECT_LE(*allocated, kMiB);
}

TEST(FileStore, NewNeverOverwritesAndIsPrivate) {
  TempDir dir;
  const std::string path = dir.Put("a", "precious");
  auto again = FileStore::Open(path, FileStore::Mode::kCreateNew);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
  EXPECT_EQ(dir.Get("a"), "precious");
  ASSERT_TRUE(FileStore::Open(dir.File("b"), FileStore::Mode::kCreateNew));
  struct stat info;
  ASSERT_EQ(stat(dir.File("b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 077, 0u);
}

TEST(FileStore, AbsurdOffsetsAreErrors) {
  TempDir dir;
  auto store = FileStore::Open(dir.File("a"), FileStore::Mode::kCreateNew);
  ASSERT_TRUE(store);
  for (uint64_t offset : {UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63, (uint64_t{1} << 63) - 1}) {
    auto status = (*store)->WriteAt(offset, AsBytes("xy"));
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  }
  EXPECT_FALSE((*store)->SetSize(UINT64_MAX));
  EXPECT_FALSE((*store)->WriteZeros(1, UINT64_MAX));
  EXPECT_EQ((*store)->Size(), 0u);
}

TEST(FreeSpace, ForAFileThatIsNotThereYet) {
  TempDir dir;
  auto space = FreeSpaceFor(dir.File("not-there"));
  ASSERT_TRUE(space);
  EXPECT_GT(*space, 0u);
  EXPECT_FALSE(FreeSpaceFor("/nonexistent/dir/file"));
}

}  // namespace
}  // namespace imgfsck
