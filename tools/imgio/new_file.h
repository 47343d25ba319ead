// SPDX-License-Identifier: Apache-2.0
// A file that a command makes. It is there under its name once it is complete: over an existing
// file it is made beside it first and then takes its place. Block devices are written as they are.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "io/file.h"
#include "io/lock.h"

namespace imgfsck {

class NewFile {
 public:
  // kExists when there is a file and nobody said `force`; kLocked when a machine uses it.
  static Result<std::unique_ptr<NewFile>> Create(const std::string& path, bool force);
  ~NewFile();  // takes the file away again unless it is kept
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  FileStore& file() { return *store_; }
  ByteStore& store() { return unsynced_; }  // the same, for whom does not wait for the disk
  // Puts the file in its place, for good. When it takes another one's, or is meant to be durable,
  // it waits for the disk.
  Status Keep(bool durable);

 private:
  // Until the file is complete nobody needs any part of it, in no order.
  class Unsynced : public ByteStore {
   public:
    explicit Unsynced(NewFile* file) : file_(*file) {}
    uint64_t Size() const override { return store().Size(); }
    Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
      return store().ReadAt(offset, buffer);
    }
    Result<HostExtent> ExtentAt(uint64_t offset) const override { return store().ExtentAt(offset); }
    void Prefetch(uint64_t offset, uint64_t length) const override {
      store().Prefetch(offset, length);
    }
    Status WriteAt(uint64_t offset, Bytes bytes) override { return store().WriteAt(offset, bytes); }
    Status SetSize(uint64_t size) override { return store().SetSize(size); }
    Status Sync() override { return Ok(); }
    Status WriteZeros(uint64_t offset, uint64_t length) override {
      return store().WriteZeros(offset, length);
    }

   private:
    FileStore& store() const { return *file_.store_; }
    NewFile& file_;
  };

  NewFile() : unsynced_(this) {}
  Status CreateBeside(const std::string& path);
  std::string path_;     // as it will be called, symbolic links resolved
  std::string written_;  // as it is called until then; empty: nothing to take away
  std::unique_ptr<FileStore> store_;
  Unsynced unsynced_;
  std::unique_ptr<FileStore> replaced_;  // the file in the way
  std::unique_ptr<ImageLock> lock_;      // on what existed; goes first
};

}  // namespace imgfsck
