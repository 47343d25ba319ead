// SPDX-License-Identifier: Apache-2.0
// Our locks and QEMU's keep each other out. qemu-io and qemu-img must be installed.
#include "io/lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "io/file.h"
#include "temp_dir.h"

namespace imgfsck {
namespace {

// qemu-io with an image open, from construction to destruction.
class Holder {
 public:
  explicit Holder(std::vector<std::string> arguments) {
    std::array<int, 2> in{}, out{};
    IMG_CHECK(pipe2(in.data(), O_CLOEXEC) == 0 && pipe2(out.data(), O_CLOEXEC) == 0);
    arguments.insert(arguments.begin(), "qemu-io");
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      execvp(argv[0], argv.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
    // It answers a command only when the image is open.
    constexpr char kCommand[] = "length\n";
    ready_ = write(in_, kCommand, sizeof kCommand - 1) > 0 && AwaitAnswer();
  }
  ~Holder() {
    close(in_);  // end of input: it quits
    close(out_);
    waitpid(pid_, nullptr, 0);
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  bool ready() const { return ready_; }

 private:
  bool AwaitAnswer() const {
    std::string answer;
    pollfd wait{out_, POLLIN, 0};
    while (answer.find("MiB") == std::string::npos && answer.find("KiB") == std::string::npos) {
      char buffer[256];
      if (poll(&wait, 1, 20000) <= 0) return false;
      const ssize_t got = read(out_, buffer, sizeof buffer);
      if (got <= 0) return false;
      answer.append(buffer, static_cast<size_t>(got));
    }
    return true;
  }
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  bool ready_ = false;
};

struct ShellOutcome {
  int status;
  std::string output;
};

ShellOutcome Shell(const std::string& command) {
  ShellOutcome outcome{-1, ""};
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) outcome.output += buffer;
  outcome.status = pclose(pipe);
  return outcome;
}

class LockTest : public testing::Test {
 protected:
  void SetUp() override {
    image_ = dir_.File("image");
    const ShellOutcome made = Shell("qemu-img create -q -f qcow2 " + image_ + " 8M");
    ASSERT_EQ(made.status, 0) << "qemu-utils must be installed: " << made.output;
    auto source = FileSource::Open(image_);
    auto store = FileStore::Open(image_, FileStore::Mode::kExisting);
    ASSERT_TRUE(source && store);
    source_ = std::move(*source);
    store_ = std::move(*store);
  }
  TempDir dir_;
  std::string image_;
  std::unique_ptr<FileSource> source_;
  std::unique_ptr<FileStore> store_;
};

TEST_F(LockTest, AFreeImageIsOurs) {
  auto use = ProbeImageUse(source_->fd());
  ASSERT_TRUE(use);
  EXPECT_TRUE(use->known);
  EXPECT_FALSE(use->written);
  EXPECT_FALSE(use->write_denied);
  EXPECT_TRUE(ImageLock::Acquire(store_->fd(), image_));
}

TEST_F(LockTest, AWritingQemuKeepsUsOut) {
  {
    Holder holder({image_});
    ASSERT_TRUE(holder.ready());
    auto use = ProbeImageUse(source_->fd());
    ASSERT_TRUE(use);
    EXPECT_TRUE(use->written);
    EXPECT_TRUE(use->write_denied);
    auto lock = ImageLock::Acquire(store_->fd(), image_);
    ASSERT_FALSE(lock);
    EXPECT_EQ(lock.error().code, ErrorCode::kLocked);
    EXPECT_NE(lock.error().message.find("\"write\""), std::string::npos) << lock.error().message;
  }
  EXPECT_TRUE(ImageLock::Acquire(store_->fd(), image_));
}

TEST_F(LockTest, AWriterThatSharesKeepsUsOutToo) {
  Holder holder({"-f", "raw", image_});
  ASSERT_TRUE(holder.ready());
  auto use = ProbeImageUse(source_->fd());
  ASSERT_TRUE(use);
  EXPECT_TRUE(use->written);
  EXPECT_FALSE(use->write_denied);
  EXPECT_FALSE(ImageLock::Acquire(store_->fd(), image_));
}

TEST_F(LockTest, AReaderThatCountsOnStillnessKeepsUsOut) {
  Holder holder({"-r", image_});
  ASSERT_TRUE(holder.ready());
  auto use = ProbeImageUse(source_->fd());
  ASSERT_TRUE(use);
  EXPECT_FALSE(use->written);
  EXPECT_TRUE(use->write_denied);
  auto lock = ImageLock::Acquire(store_->fd(), image_);
  ASSERT_FALSE(lock);
  EXPECT_EQ(lock.error().code, ErrorCode::kLocked);
}

TEST_F(LockTest, ARefusedAcquireLeavesNoLockBehind) {
  {
    Holder holder({"-r", image_});
    ASSERT_TRUE(holder.ready());
    EXPECT_FALSE(ImageLock::Acquire(store_->fd(), image_));
    auto use = ProbeImageUse(source_->fd());
    ASSERT_TRUE(use);
    EXPECT_FALSE(use->written);  // neither the holder nor we
  }
  EXPECT_EQ(Shell("qemu-img check -q -r all " + image_).status, 0);
}

TEST_F(LockTest, OurLockKeepsQemuOut) {
  {
    auto lock = ImageLock::Acquire(store_->fd(), image_);
    ASSERT_TRUE(lock);
    const ShellOutcome repair = Shell("qemu-img check -r all " + image_);
    EXPECT_NE(repair.status, 0);
    EXPECT_NE(repair.output.find("Failed to get \"write\" lock"), std::string::npos)
        << repair.output;
    const ShellOutcome check = Shell("qemu-img check " + image_);
    EXPECT_NE(check.output.find("Failed to get shared \"write\" lock"), std::string::npos)
        << check.output;
    auto use = ProbeImageUse(source_->fd());
    ASSERT_TRUE(use);
    EXPECT_TRUE(use->written);  // another description of the same file, as another process has
    auto own = ProbeImageUse(store_->fd());
    ASSERT_TRUE(own);
    EXPECT_FALSE(own->written);  // one's own locks do not count
    auto second = FileStore::Open(image_, FileStore::Mode::kExisting);
    ASSERT_TRUE(second);
    EXPECT_FALSE(ImageLock::Acquire((*second)->fd(), image_));
  }
  EXPECT_EQ(Shell("qemu-img check -q -r all " + image_).status, 0);
}

}  // namespace
}  // namespace imgfsck
