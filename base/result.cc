// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace imgfsck {
namespace {

ErrorCode CodeFromErrno(int os_error) {
  switch (os_error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorCode::kNoSpace;
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::kPermission;
    case EEXIST:
      return ErrorCode::kExists;
    case ENOMEM:
      return ErrorCode::kOutOfMemory;
    case EAGAIN:
      return ErrorCode::kLocked;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

Error ErrorFromErrno(int os_error, const std::string& what, std::optional<uint64_t> offset) {
  return Error{CodeFromErrno(os_error), fmt::format("{}: {}", what, std::strerror(os_error)),
               offset};
}

void CheckFailed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "internal error at %s:%d: %s\n", file, line, expression);
  std::abort();
}

}  // namespace imgfsck
