// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/new_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/text.h"

namespace imgfsck {
namespace {

// What other programs give a new image.
mode_t UsualMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0644 & ~mask;
}

std::string Resolved(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  std::string result = real != nullptr ? real : path;
  free(real);
  return result;
}

}  // namespace

Status NewFile::CreateBeside(const std::string& path) {
  path_ = Resolved(path);
  written_ = fmt::format("{}.imgio-{}", path_, getpid());
  struct stat old {};
  if (fstat(replaced_->fd(), &old) != 0) return ErrorFromErrno(errno, Printable(path));
  auto file = FileStore::Open(written_, FileStore::Mode::kCreateNew);
  if (!file) {
    written_.clear();
    return std::move(file).error();
  }
  store_ = std::move(*file);
  // Only the superuser can give a file away; the mode is given last, as that would clear bits of
  // it.
  if (fchown(store_->fd(), old.st_uid, old.st_gid) != 0 && errno != EPERM) {
    return ErrorFromErrno(errno, Printable(written_));
  }
  if (fchmod(store_->fd(), old.st_mode & 0777) != 0) {
    return ErrorFromErrno(errno, Printable(written_));
  }
  return Ok();
}

Result<std::unique_ptr<NewFile>> NewFile::Create(const std::string& path, bool force) {
  std::unique_ptr<NewFile> file(new NewFile);
  struct stat status {};
  bool exists = stat(path.c_str(), &status) == 0;
  if (!exists) {
    IMG_ASSIGN_OR_RETURN(file->store_, FileStore::Open(path, FileStore::Mode::kCreateNew));
    file->path_ = file->written_ = path;
    if (fchmod(file->store_->fd(), UsualMode()) != 0) return ErrorFromErrno(errno, Printable(path));
    return file;
  }
  if (!S_ISBLK(status.st_mode) && !force) {
    return Error{
        ErrorCode::kExists, fmt::format("{} exists; --force overwrites it", Printable(path)), {}};
  }
  IMG_ASSIGN_OR_RETURN(auto old, FileStore::Open(path, FileStore::Mode::kExisting));
  IMG_ASSIGN_OR_RETURN(file->lock_, ImageLock::Acquire(old->fd(), path));
  if (old->is_block_device()) {
    file->path_ = path;
    file->store_ = std::move(old);
    return file;
  }
  file->replaced_ = std::move(old);
  IMG_RETURN_IF_ERROR(file->CreateBeside(path));
  return file;
}

Status NewFile::Keep(bool durable) {
  durable = durable || replaced_ || store_->is_block_device();
  if (durable) IMG_RETURN_IF_ERROR(store_->Sync());
  if (written_ != path_ && !written_.empty() && rename(written_.c_str(), path_.c_str()) != 0) {
    return ErrorFromErrno(errno, Printable(path_));
  }
  written_.clear();
  return durable ? SyncDirectoryOf(path_) : Ok();
}

NewFile::~NewFile() {
  if (!written_.empty()) unlink(written_.c_str());
}

}  // namespace imgfsck
