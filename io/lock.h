// SPDX-License-Identifier: Apache-2.0
// The byte-range locks by which QEMU processes keep out of each other's way (open file description
// locks): byte 100+p is share-locked while permission p is held, byte 200+p while p is not shared
// with others. p: 0 consistent read, 1 write, 2 write unchanged, 3 resize.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace imgfsck {

// Who seems to use the image, asked without taking a lock (safe on evidence).
struct ImageUse {
  bool written = false;       // somebody holds the write or resize permission
  bool write_denied = false;  // somebody does not allow others to write
  bool known = true;          // false: the file system does not support such locks
};
Result<ImageUse> ProbeImageUse(int fd);

// Holds, until destruction, the locks of a process that reads, writes and resizes the image and
// lets nobody else write or resize. kLocked, with a sentence, when somebody else is in the way: asked
// a few times within a second, since two that begin at once are in each other's way for a moment.
class ImageLock {
 public:
  static Result<std::unique_ptr<ImageLock>> Acquire(int fd, const std::string& path);
  ~ImageLock();
  ImageLock(const ImageLock&) = delete;
  ImageLock& operator=(const ImageLock&) = delete;

 private:
  explicit ImageLock(int fd) : fd_(fd) {}
  int fd_;  // not owned
};

}  // namespace imgfsck
