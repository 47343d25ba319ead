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

  FileStore& store() { return *store_; }
  // Puts the file in its place, for good.
  Status Keep();

 private:
  NewFile() = default;
  Status CreateBeside(const std::string& path);
  std::string path_;     // as it will be called, symbolic links resolved
  std::string written_;  // as it is called until then; empty: nothing to take away
  std::unique_ptr<FileStore> store_;
  std::unique_ptr<FileStore> replaced_;  // the file in the way
  std::unique_ptr<ImageLock> lock_;      // on what existed; goes first
};

}  // namespace imgfsck
