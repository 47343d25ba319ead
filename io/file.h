// SPDX-License-Identifier: Apache-2.0
// Images in files and block devices. FileSource is opened O_RDONLY and can never write; FileStore
// is what a commit or a driver opened for writing uses.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "io/byte_source.h"

namespace imgfsck {

// What tells one state of a file from another.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;  // bytes
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// A regular file or block device, read-only: O_RDONLY | O_CLOEXEC | O_NONBLOCK, O_NOATIME where the
// kernel allows it. Directories, FIFOs, sockets and character devices are refused (kInvalid, with
// a sentence saying what it is) without ever blocking on them.
class FileSource : public ByteSource {
 public:
  static Result<std::unique_ptr<FileSource>> Open(const std::string& path);
  ~FileSource() override;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  uint64_t Size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override;  // SEEK_DATA / SEEK_HOLE
  void Prefetch(uint64_t offset, uint64_t length) const override;

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  bool is_block_device() const { return is_block_device_; }
  Result<FileIdentity> Identity() const;  // as it is now, to notice a change under us

 private:
  FileSource(std::string path, int fd, uint64_t size, bool is_block_device);
  std::string path_;
  int fd_;
  uint64_t size_;
  bool is_block_device_;
};

// The same, open for reading and writing. A block device never changes its size (SetSize beyond
// it: kNoSpace; below it: ignored, the size stays).
class FileStore : public ByteStore {
 public:
  enum class Mode { kExisting, kCreateNew };  // kCreateNew: O_EXCL, mode 0600 & ~umask
  static Result<std::unique_ptr<FileStore>> Open(const std::string& path, Mode mode);
  ~FileStore() override;
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  uint64_t Size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override;
  void Prefetch(uint64_t offset, uint64_t length) const override;
  Status WriteAt(uint64_t offset, Bytes bytes) override;
  Status SetSize(uint64_t size) override;
  Status Sync() override;
  Status WriteZeros(uint64_t offset, uint64_t length) override;  // FALLOC_FL_PUNCH_HOLE, else zeros

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  bool is_block_device() const { return is_block_device_; }

 private:
  FileStore(std::string path, int fd, uint64_t size, bool is_block_device);
  std::string path_;
  int fd_;
  uint64_t size_;
  bool is_block_device_;
};

Status SyncDirectoryOf(const std::string& path);         // fsync of the folder holding path
Result<uint64_t> FreeSpaceFor(const std::string& path);  // bytes free where path lies
Result<uint64_t> AllocatedBytes(int fd);                 // st_blocks * 512

}  // namespace imgfsck
