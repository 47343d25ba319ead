// SPDX-License-Identifier: Apache-2.0
#include "chain/gate.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>

#include "base/text.h"

namespace imgfsck {
namespace {

Error Refused(const std::string& name, const char* why) {
  return {
      ErrorCode::kUnsupported, fmt::format("\"{}\" is not opened: {}", Printable(name), why), {}};
}

// A path, with a leading "file:" taken off.
Result<std::string> PlainPath(const std::string& name) {
  std::string path = name.starts_with("file:") ? name.substr(5) : name;
  if (path.empty()) return Refused(name, "it is empty");
  if (path.find('\0') != std::string::npos) return Refused(name, "it is no path");
  size_t colon = path.find(':'), slash = path.find('/');
  if (colon != std::string::npos && (slash == std::string::npos || colon < slash)) {
    return Refused(name, "it is no plain local file (a path with a colon begins with ./)");
  }
  return path;
}

// Files that the kernel makes up: their names are paths to anything but disks.
bool IsKernelFile(int fd) {
  struct statfs status {};
  if (fstatfs(fd, &status) != 0) return false;
  return status.f_type == PROC_SUPER_MAGIC || status.f_type == SYSFS_MAGIC ||
         status.f_type == DEBUGFS_MAGIC || status.f_type == TRACEFS_MAGIC;
}

Status MustBeRegular(const std::string& path, int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return ErrorFromErrno(errno, "stat " + Printable(path));
  if (S_ISREG(status.st_mode) && !IsKernelFile(fd)) return Ok();
  return Error{ErrorCode::kInvalid,
               fmt::format("\"{}\" is not opened: it is no regular file", Printable(path)),
               {}};
}

}  // namespace

Result<std::string> ResolveBackingName(const std::string& image_path, const std::string& name) {
  IMG_ASSIGN_OR_RETURN(std::string path, PlainPath(name));
  if (path.front() == '/') return path;
  size_t slash = image_path.rfind('/');
  return slash == std::string::npos ? path : image_path.substr(0, slash + 1) + path;
}

Result<std::string> ResolveDataFileName(const std::string& name) { return PlainPath(name); }

Result<std::unique_ptr<FileSource>> OpenNamed(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto file, FileSource::Open(path));
  IMG_RETURN_IF_ERROR(MustBeRegular(path, file->fd()));
  return file;
}

Result<std::unique_ptr<FileStore>> OpenNamedForWriting(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto file, FileStore::Open(path, FileStore::Mode::kExisting));
  IMG_RETURN_IF_ERROR(MustBeRegular(path, file->fd()));
  return file;
}

}  // namespace imgfsck
