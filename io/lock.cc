// SPDX-License-Identifier: Apache-2.0
// As QEMU does it: first take shared locks on one's own bytes, then look whether anybody holds a
// byte that is against them. Of two that come at once both give up at first, and try again; never
// do both go on.
#include "io/lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/text.h"

namespace imgfsck {
namespace {

enum Permission { kConsistentRead = 0, kWrite = 1, kWriteUnchanged = 2, kResize = 3 };
constexpr off_t kHeldBase = 100;      // + permission: somebody holds it
constexpr off_t kUnsharedBase = 200;  // + permission: somebody does not want others to hold it

// What a repair holds, and what it does not share.
constexpr Permission kOurs[] = {kConsistentRead, kWrite, kResize};
constexpr Permission kNotShared[] = {kWrite, kResize};

const char* PermissionName(Permission permission) {
  switch (permission) {
    case kConsistentRead:
      return "consistent read";
    case kWrite:
      return "write";
    case kWriteUnchanged:
      return "write unchanged";
    case kResize:
      return "resize";
  }
  return "unknown";
}

struct flock OneByte(off_t byte, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// 0, or errno. Never waits.
int SetByte(int fd, off_t byte, short type) {
  struct flock lock = OneByte(byte, type);
  while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// Whether another open file description holds any lock on the byte; or errno (positive) in `error`.
bool HeldByOther(int fd, off_t byte, int* error) {
  struct flock lock = OneByte(byte, F_WRLCK);
  while (fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    if (errno == EINTR) continue;
    *error = errno;
    return false;
  }
  return lock.l_type != F_UNLCK;
}

bool MeansUnsupported(int os_error) {
  return os_error == EINVAL || os_error == ENOLCK || os_error == ENOSYS || os_error == EOPNOTSUPP;
}

void Release(int fd) {
  for (Permission permission : kOurs) SetByte(fd, kHeldBase + permission, F_UNLCK);
  for (Permission permission : kNotShared) SetByte(fd, kUnsharedBase + permission, F_UNLCK);
}

Error LockError(int os_error, const std::string& path) {
  const std::string name = Printable(path);
  if (MeansUnsupported(os_error)) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: this file system has no locks that would keep a virtual machine "
                             "away from the image",
                             name),
                 {}};
  }
  if (os_error == EAGAIN || os_error == EACCES) {
    return Error{
        ErrorCode::kLocked, fmt::format("{} is exclusively locked by another process", name), {}};
  }
  return ErrorFromErrno(os_error, fmt::format("lock {}", name));
}

Status TakeOurs(int fd, const std::string& path) {
  for (Permission permission : kOurs) {
    const int os_error = SetByte(fd, kHeldBase + permission, F_RDLCK);
    if (os_error != 0) return LockError(os_error, path);
  }
  for (Permission permission : kNotShared) {
    const int os_error = SetByte(fd, kUnsharedBase + permission, F_RDLCK);
    if (os_error != 0) return LockError(os_error, path);
  }
  return Ok();
}

Status RefuseOpponents(int fd, const std::string& path) {
  int os_error = 0;
  for (Permission permission : kNotShared) {
    if (HeldByOther(fd, kHeldBase + permission, &os_error)) {
      return Error{ErrorCode::kLocked,
                   fmt::format("{} is in use: another process (a running virtual machine?) holds "
                               "the \"{}\" permission on it",
                               Printable(path), PermissionName(permission)),
                   {}};
    }
  }
  for (Permission permission : kOurs) {
    if (HeldByOther(fd, kUnsharedBase + permission, &os_error)) {
      return Error{ErrorCode::kLocked,
                   fmt::format("{} is in use: another process does not allow anybody else the "
                               "\"{}\" permission on it",
                               Printable(path), PermissionName(permission)),
                   {}};
    }
  }
  if (os_error != 0) return LockError(os_error, path);
  return Ok();
}

}  // namespace

Result<ImageUse> ProbeImageUse(int fd) {
  int os_error = 0;
  ImageUse use;
  for (Permission permission : {kWrite, kResize}) {
    use.written |= HeldByOther(fd, kHeldBase + permission, &os_error);
  }
  use.write_denied = HeldByOther(fd, kUnsharedBase + kWrite, &os_error);
  if (os_error == 0) return use;
  if (!MeansUnsupported(os_error)) return ErrorFromErrno(os_error, "look for locks");
  return ImageUse{.known = false};
}

Result<std::unique_ptr<ImageLock>> ImageLock::Acquire(int fd, const std::string& path) {
  // Who comes at the same moment is in the way too, and gives up too: after a while that is not the
  // same for both, one of them gets through.
  constexpr int kTries = 5;
  for (int left = kTries - 1;; --left) {
    auto status = TakeOurs(fd, path);
    if (status) status = RefuseOpponents(fd, path);
    if (status) return std::unique_ptr<ImageLock>(new ImageLock(fd));
    Release(fd);
    if (left == 0 || status.error().code != ErrorCode::kLocked) {
      return Error(std::move(status).error());
    }
    const int tries = kTries - left;
    const int milliseconds = 2 + (getpid() * (2 * tries - 1)) % (10 * tries);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }
}

ImageLock::~ImageLock() { Release(fd_); }

}  // namespace imgfsck
