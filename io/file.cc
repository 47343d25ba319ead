// SPDX-License-Identifier: Apache-2.0
// Files and block devices behind ByteSource and ByteStore. Only FileStore has a call that writes.
#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>

#include "base/checked.h"
#include "base/text.h"
#include "io/read_loop.h"

namespace imgfsck {
namespace {

constexpr uint64_t kLargestOffset = std::numeric_limits<off_t>::max();

struct OpenFile {
  int fd = -1;
  uint64_t size = 0;
  bool is_block_device = false;
};

const char* KindName(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode)) return "a character device";
  return "neither a regular file nor a block device";
}

Status RefuseOddKinds(const std::string& path, mode_t mode) {
  if (S_ISREG(mode) || S_ISBLK(mode)) return Ok();
  return Error{ErrorCode::kInvalid, fmt::format("{} is {}", Printable(path), KindName(mode)), {}};
}

// open(2) that keeps the access time where the kernel lets us.
int OpenQuietly(const std::string& path, int flags) {
  flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  int fd = -1;
  do {
    fd = open(path.c_str(), flags | O_NOATIME, 0600);
    if (fd < 0 && errno == EPERM) fd = open(path.c_str(), flags, 0600);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

Result<OpenFile> Describe(const std::string& path, int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrorFromErrno(errno, Printable(path));
  IMG_RETURN_IF_ERROR(RefuseOddKinds(path, info.st_mode));
  OpenFile file{fd, 0, S_ISBLK(info.st_mode)};
  if (!file.is_block_device) {
    file.size = static_cast<uint64_t>(info.st_size);
  } else if (ioctl(fd, BLKGETSIZE64, &file.size) != 0) {
    return ErrorFromErrno(errno, fmt::format("{}: size of the block device", Printable(path)));
  }
  return file;
}

Result<OpenFile> OpenImage(const std::string& path, int flags) {
  // Opening a device or a FIFO can itself have effects, so look before; look again afterwards,
  // because the name may have changed its meaning in between.
  if (struct stat info; !(flags & O_CREAT) && stat(path.c_str(), &info) == 0) {
    IMG_RETURN_IF_ERROR(RefuseOddKinds(path, info.st_mode));
  }
  const int fd = OpenQuietly(path, flags);
  if (fd < 0) return ErrorFromErrno(errno, fmt::format("open {}", Printable(path)));
  auto file = Describe(path, fd);
  if (!file) close(fd);
  return file;
}

Result<size_t> ReadFd(int fd, uint64_t size, const std::string& path, uint64_t offset,
                      MutableBytes buffer) {
  if (offset >= size) return size_t{0};
  const size_t length = std::min<uint64_t>(buffer.size(), size - offset);
  const auto call = [fd](uint8_t* to, size_t count, uint64_t at) {
    return pread(fd, to, count, static_cast<off_t>(at));
  };
  return ReadLoop(call, offset, buffer.first(length), path);
}

// lseek moves the file position, which nobody here uses: safe beside other threads.
Result<HostExtent> ExtentOfFd(int fd, uint64_t size, uint64_t offset) {
  if (offset >= size) {
    return Error{ErrorCode::kInvalid, "no extent past the end of the file", offset};
  }
  const HostExtent all_data{offset, size - offset, false};
  const off_t data = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return HostExtent{offset, size - offset, true};
  if (data < 0) return all_data;
  const uint64_t data_start = std::min(static_cast<uint64_t>(data), size);
  if (data_start > offset) return HostExtent{offset, data_start - offset, true};
  const off_t hole = lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
  if (hole <= static_cast<off_t>(offset)) return all_data;
  return HostExtent{offset, std::min(static_cast<uint64_t>(hole), size) - offset, false};
}

void PrefetchFd(int fd, uint64_t size, uint64_t offset, uint64_t length) {
  if (offset >= size || length == 0) return;  // a length of 0 would mean "to the end"
  length = std::min(length, size - offset);
  (void)posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(length),
                      POSIX_FADV_WILLNEED);
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

int64_t Nanoseconds(const struct timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The data that a thread was last told of. Some file systems look for a hole page by page to the
// end of the file, which takes too long to be asked of every cluster. Holes are asked for each
// time: what was one may be written meanwhile.
struct KnownData {
  const FileSource* source = nullptr;
  uint64_t opened = 0, begin = 0, end = 0;
};
thread_local KnownData known_data;
std::atomic<uint64_t> sources_opened{0};  // tells a source from one that was at its address before

}  // namespace

FileSource::FileSource(std::string path, int fd, uint64_t size, bool is_block_device)
    : path_(std::move(path)), fd_(fd), size_(size), is_block_device_(is_block_device) {
  sources_opened.fetch_add(1);
}

FileSource::~FileSource() { close(fd_); }

Result<std::unique_ptr<FileSource>> FileSource::Open(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const OpenFile file, OpenImage(path, O_RDONLY));
  return std::unique_ptr<FileSource>(
      new FileSource(path, file.fd, file.size, file.is_block_device));
}

Result<size_t> FileSource::ReadAt(uint64_t offset, MutableBytes buffer) const {
  return ReadFd(fd_, size_, path_, offset, buffer);
}

Result<HostExtent> FileSource::ExtentAt(uint64_t offset) const {
  KnownData& known = known_data;
  const uint64_t opened = sources_opened.load();
  if (known.source == this && known.opened == opened && offset >= known.begin &&
      offset < known.end) {
    return HostExtent{offset, known.end - offset, false};
  }
  auto extent = ExtentOfFd(fd_, size_, offset);
  if (extent && !extent->hole) known = {this, opened, offset, offset + extent->length};
  return extent;
}

void FileSource::Prefetch(uint64_t offset, uint64_t length) const {
  PrefetchFd(fd_, size_, offset, length);
}

Result<FileIdentity> FileSource::Identity() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) return ErrorFromErrno(errno, Printable(path_));
  IMG_ASSIGN_OR_RETURN(const OpenFile now, Describe(path_, fd_));
  return FileIdentity{info.st_dev, info.st_ino, now.size, Nanoseconds(info.st_mtim),
                      Nanoseconds(info.st_ctim)};
}

FileStore::FileStore(std::string path, int fd, uint64_t size, bool is_block_device)
    : path_(std::move(path)), fd_(fd), size_(size), is_block_device_(is_block_device) {}

FileStore::~FileStore() { close(fd_); }

Result<std::unique_ptr<FileStore>> FileStore::Open(const std::string& path, Mode mode) {
  const int flags = O_RDWR | (mode == Mode::kCreateNew ? O_CREAT | O_EXCL : 0);
  auto opened = OpenImage(path, flags);
  if (!opened && opened.error().code == ErrorCode::kExists) {
    return Error{
        ErrorCode::kExists, Printable(path) + " exists already and is not overwritten", {}};
  }
  IMG_ASSIGN_OR_RETURN(const OpenFile file, std::move(opened));
  return std::unique_ptr<FileStore>(new FileStore(path, file.fd, file.size, file.is_block_device));
}

Result<size_t> FileStore::ReadAt(uint64_t offset, MutableBytes buffer) const {
  return ReadFd(fd_, size_, path_, offset, buffer);
}

Result<HostExtent> FileStore::ExtentAt(uint64_t offset) const {
  return ExtentOfFd(fd_, size_, offset);
}

void FileStore::Prefetch(uint64_t offset, uint64_t length) const {
  PrefetchFd(fd_, size_, offset, length);
}

Status FileStore::WriteAt(uint64_t offset, Bytes bytes) {
  if (bytes.empty()) return Ok();
  const uint64_t end = SaturatingAdd(offset, bytes.size());
  if (end > kLargestOffset || (is_block_device_ && end > size_)) {
    return Error{ErrorCode::kNoSpace,
                 fmt::format("{}: a write at {:#x} does not fit", Printable(path_), offset),
                 offset};
  }
  while (!bytes.empty()) {
    const ssize_t put = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      return ErrorFromErrno(errno, fmt::format("{}: write at {:#x}", Printable(path_), offset),
                            offset);
    }
    offset += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
    if (offset > size_) size_ = offset;  // inside the file several threads may write
  }
  return Ok();
}

Status FileStore::SetSize(uint64_t size) {
  if (size > kLargestOffset || (is_block_device_ && size > size_)) {
    return Error{
        ErrorCode::kNoSpace, fmt::format("{} cannot grow to {} bytes", Printable(path_), size), {}};
  }
  if (is_block_device_ || size == size_) return Ok();
  while (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    if (errno == EINTR) continue;
    return ErrorFromErrno(errno, fmt::format("{}: set the length to {}", Printable(path_), size));
  }
  size_ = size;
  return Ok();
}

Status FileStore::Sync() {
  while (fsync(fd_) != 0) {
    if (errno != EINTR) return ErrorFromErrno(errno, fmt::format("sync {}", Printable(path_)));
  }
  return Ok();
}

Status FileStore::WriteZeros(uint64_t offset, uint64_t length) {
  if (length == 0) return Ok();
  const uint64_t end = SaturatingAdd(offset, length);
  const uint64_t old_size = size_;
  if (end > old_size) IMG_RETURN_IF_ERROR(SetSize(end));  // the new part reads as zeros already
  if (offset >= old_size) return Ok();
  length = std::min(end, old_size) - offset;
  int outcome = 0;
  do {
    outcome = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                        static_cast<off_t>(length));
  } while (outcome != 0 && errno == EINTR);
  return outcome == 0 ? Ok() : ByteStore::WriteZeros(offset, length);
}

Status SyncDirectoryOf(const std::string& path) {
  const std::string folder = FolderOf(path);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrorFromErrno(errno, fmt::format("open {}", Printable(folder)));
  const int outcome = fsync(fd);
  const int os_error = errno;
  close(fd);
  // Some file systems have nothing to sync for a directory and say so with EINVAL.
  if (outcome == 0 || os_error == EINVAL) return Ok();
  return ErrorFromErrno(os_error, fmt::format("sync {}", Printable(folder)));
}

Result<uint64_t> FreeSpaceFor(const std::string& path) {
  struct statvfs info;
  if (statvfs(path.c_str(), &info) != 0 && statvfs(FolderOf(path).c_str(), &info) != 0) {
    return ErrorFromErrno(errno, fmt::format("free space at {}", Printable(path)));
  }
  return SaturatingMul(info.f_bavail, info.f_frsize);
}

Result<uint64_t> AllocatedBytes(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrorFromErrno(errno, "fstat");
  return SaturatingMul(static_cast<uint64_t>(info.st_blocks), 512);
}

}  // namespace imgfsck
