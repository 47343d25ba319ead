// SPDX-License-Identifier: Apache-2.0
// What each filter forbids and what it lets through, tried in a process of its own.
#include "io/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "io/file.h"
#include "io/overlay.h"
#include "io/undo_record.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck {
namespace {

constexpr int kRefused = 100, kWorked = 101, kOther = 102;

// What a call that gives -1 and errno did.
int Outcome(long result) {
  if (result >= 0) return kWorked;
  return errno == EPERM ? kRefused : kOther;
}

// `inside`'s exit status, from a process with the filter on. Standard output goes nowhere.
int Inside(SandboxLevel level, const std::function<int()>& inside) {
  const pid_t child = fork();
  if (child == 0) {
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDOUT_FILENO);
    if (!EnterSandbox(level, {STDOUT_FILENO})) _exit(1);
    _exit(inside());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class Sandbox : public testing::TestWithParam<SandboxLevel> {
 protected:
  void SetUp() override {
    if (!SandboxBuilt()) GTEST_SKIP() << "no filter in a build with sanitizers";
    ASSERT_TRUE(SandboxSupported()) << SandboxSupported().error().message;
  }
};

TEST_P(Sandbox, NothingToConnectToNothingToStart) {
  const std::pair<const char*, std::function<long()>> attempts[] = {
      {"socket", [] { return socket(AF_INET, SOCK_STREAM, 0); }},
      {"local socket", [] { return socket(AF_UNIX, SOCK_STREAM, 0); }},
      {"pair of sockets",
       [] {
         int ends[2];
         return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
       }},
      {"another process", [] { return long{fork()}; }},
      {"another program",
       [] {
         char* const words[] = {nullptr};
         return execve("/bin/true", words, words);
       }},
      {"signal to the parent", [] { return kill(getppid(), SIGTERM); }},
      {"memory that can be executed",
       [] {
         void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return memory == MAP_FAILED ? -1 : 0;
       }},
      {"another root", [] { return chroot("/"); }},
      {"permissions", [] { return chmod("/dev/null", 0666); }},
  };
  for (const auto& [name, attempt] : attempts) {
    const auto& call = attempt;
    EXPECT_EQ(Inside(GetParam(), [&] { return Outcome(call()); }), kRefused) << name;
  }
}

TEST_P(Sandbox, ThreadsMemoryAndOutputWork) {
  const int code = Inside(GetParam(), [] {
    std::vector<char> much(64 << 20, 'x');
    long sum = 0;
    std::vector<std::thread> threads;
    threads.emplace_back([&] { sum = much[much.size() / 2]; });
    threads.front().join();
    return sum == 'x' && write(STDOUT_FILENO, "x", 1) == 1 ? kWorked : kOther;
  });
  EXPECT_EQ(code, kWorked);
}

TEST_P(Sandbox, WhatIsOpenCanBeReadAndNamesLookedAt) {
  TempDir folder;
  const std::string path = folder.Put("disk", "0123456789");
  auto file = FileSource::Open(path);
  ASSERT_TRUE(file);
  const int code = Inside(GetParam(), [&] {
    ByteVector bytes(4);
    struct stat info;
    const bool good = (*file)->ReadAt(3, bytes) && AsText(bytes) == "3456" && (*file)->Identity() &&
                      (*file)->ExtentAt(0) && stat(path.c_str(), &info) == 0;
    return good ? kWorked : kOther;
  });
  EXPECT_EQ(code, kWorked);
}

// What each level says to a way of opening.
TEST_P(Sandbox, OpeningFiles) {
  TempDir folder;
  const std::string path = folder.Put("disk", "0123456789"), made = folder.File("new");
  const bool reads = GetParam() != SandboxLevel::kSealed;
  const bool writes = GetParam() == SandboxLevel::kWriteFiles;
  const auto expect = [&](bool allowed, const std::function<long()>& call, const char* what) {
    EXPECT_EQ(Inside(GetParam(), [&] { return Outcome(call()); }), allowed ? kWorked : kRefused)
        << what;
  };
  expect(
      reads, [&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); }, "read");
  expect(
      reads, [&] { return open(folder.path().c_str(), O_RDONLY | O_DIRECTORY); }, "folder");
  expect(
      writes, [&] { return open(path.c_str(), O_WRONLY); }, "write");
  expect(
      writes, [&] { return open(path.c_str(), O_RDWR); }, "read and write");
  expect(
      writes, [&] { return open(path.c_str(), O_RDONLY | O_TRUNC); }, "empty");
  expect(
      writes, [&] { return open(made.c_str(), O_RDONLY | O_CREAT, 0600); }, "make");
  expect(
      writes, [&] { return open(folder.path().c_str(), O_TMPFILE | O_RDWR, 0600); }, "temporary");
  expect(
      writes, [&] { return rename(path.c_str(), made.c_str()); }, "rename");
  expect(
      writes, [&] { return unlink(made.c_str()); }, "remove");
  expect(
      writes, [&] { return mkdir(made.c_str(), 0700); }, "folder");
}

TEST_P(Sandbox, WritesOnlyWhereItWasTold) {
  if (GetParam() == SandboxLevel::kWriteFiles) GTEST_SKIP() << "may write to what it opens";
  TempDir folder;
  const int fd = open(folder.Put("disk", "old").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(Inside(GetParam(), [fd] { return Outcome(write(fd, "new", 3)); }), kRefused);
  EXPECT_EQ(Inside(GetParam(), [fd] { return Outcome(pwrite(fd, "new", 3, 0)); }), kRefused);
  EXPECT_EQ(Inside(GetParam(), [fd] { return Outcome(ftruncate(fd, 0)); }), kRefused);
  EXPECT_EQ(folder.Get("disk"), "old");
  close(fd);
}

INSTANTIATE_TEST_SUITE_P(Levels, Sandbox,
                         testing::Values(SandboxLevel::kSealed, SandboxLevel::kReadFiles,
                                         SandboxLevel::kWriteFiles),
                         [](const auto& level) {
                           return std::string(level.param == SandboxLevel::kSealed ? "sealed"
                                              : level.param == SandboxLevel::kReadFiles
                                                  ? "read_files"
                                                  : "write_files");
                         });

// The whole of a repair's file work: record, pointer, patches.
TEST(SandboxWrites, AnUndoRecordIsMadeAndApplied) {
  if (!SandboxBuilt()) GTEST_SKIP() << "no filter in a build with sanitizers";
  TempDir folder;
  const std::string path = folder.Put("disk", std::string(5000, 'o'));
  const int code = Inside(SandboxLevel::kWriteFiles, [&] {
    auto file = FileStore::Open(path, FileStore::Mode::kExisting);
    if (!file) return kOther;
    Overlay overlay(**file);
    if (!overlay.WriteAt(100, AsBytes(std::string(1000, 'n')))) return kOther;
    const std::string undo = path + std::string(kUndoSuffix);
    auto record = UndoRecord::Create(undo, path, overlay);
    if (!record || !WriteJournalPointer(path, undo) || !(*record)->WriteNew(**file) ||
        !(*record)->SetState(UndoRecord::State::kApplied) || !RemoveJournalPointer(path)) {
      return kOther;
    }
    return kWorked;
  });
  EXPECT_EQ(code, kWorked);
  EXPECT_EQ(folder.Get("disk").substr(99, 1002), "o" + std::string(1000, 'n') + "o");
}

}  // namespace
}  // namespace imgfsck
