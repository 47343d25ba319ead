// SPDX-License-Identifier: Apache-2.0
// Which files there are below the paths that a user named. Looks at names and inodes only, opens no
// file. Symbolic links are not followed (but for the named paths themselves), special files are
// counted and left alone; two names of one file are one file.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/file.h"

namespace imgfsck {

struct FoundFile {
  std::string path;               // of several names the first in byte order
  std::vector<std::string> also;  // its other names
  FileIdentity identity;
  uint64_t stored = 0;                  // bytes that the host keeps of it
  uint32_t mode = 0, uid = 0, gid = 0;  // as of stat(2)
  bool block_device = false;
};

struct PathError {
  std::string path;
  Error error;
};

struct Inventory {
  std::vector<FoundFile> files;   // by path, in byte order
  std::vector<PathError> errors;  // what could not be looked at
  uint64_t directories = 0, symlinks = 0, specials = 0;
};

// Fails only when a signal asked to stop.
Result<Inventory> TakeInventory(const std::vector<std::string>& paths);

// Whether `path` (it need not exist) lies below one of the directories among `roots`.
bool LiesBelow(const std::string& path, const std::vector<std::string>& roots);

}  // namespace imgfsck
