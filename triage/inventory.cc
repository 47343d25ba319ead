// SPDX-License-Identifier: Apache-2.0
#include "triage/inventory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"

namespace imgfsck {
namespace {

namespace fs = std::filesystem;
using FileKey = std::pair<uint64_t, uint64_t>;  // device, inode

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};
using DirHandle = std::unique_ptr<DIR, DirCloser>;

int64_t Nanoseconds(const struct timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The directory, its access time kept where the kernel lets us.
DirHandle OpenDirectory(const std::string& path, bool follow) {
  const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW);
  int fd = open(path.c_str(), flags | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = open(path.c_str(), flags);
  if (fd < 0) return nullptr;
  DirHandle dir(fdopendir(fd));
  if (dir == nullptr) close(fd);
  return dir;
}

std::string Join(const std::string& directory, const std::string& name) {
  return directory.ends_with('/') ? directory + name : directory + "/" + name;
}

class Walk {
 public:
  Status Run(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) Named(path);
    while (!pending_.empty()) {
      IMG_RETURN_IF_ERROR(CheckStop());
      Pending next = std::move(pending_.back());
      pending_.pop_back();
      ReadDirectory(next);
    }
    return Ok();
  }

  Inventory Take() {
    for (auto& [key, file] : files_) {
      std::sort(names_[key].begin(), names_[key].end());
      auto& names = names_[key];
      names.erase(std::unique(names.begin(), names.end()), names.end());
      file.path = names.front();
      file.also.assign(names.begin() + 1, names.end());
      result_.files.push_back(std::move(file));
    }
    std::sort(result_.files.begin(), result_.files.end(),
              [](const FoundFile& a, const FoundFile& b) { return a.path < b.path; });
    std::sort(result_.errors.begin(), result_.errors.end(),
              [](const PathError& a, const PathError& b) { return a.path < b.path; });
    return std::move(result_);
  }

 private:
  struct Pending {
    std::string path;
    bool named;  // by the user: a link that leads to a directory is followed
  };

  void Fail(const std::string& path, int os_error) {
    result_.errors.push_back({path, ErrorFromErrno(os_error, Printable(path))});
  }

  void Named(const std::string& path) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return Fail(path, errno);
    if (S_ISDIR(info.st_mode)) {
      pending_.push_back({path, true});
    } else if (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)) {
      AddFile(path, info);
    } else {
      Fail(path, EINVAL);
      result_.errors.back().error.message =
          Printable(path) + " is neither a file, a block device nor a directory";
    }
  }

  void ReadDirectory(const Pending& next) {
    DirHandle dir = OpenDirectory(next.path, next.named);
    if (dir == nullptr) return Fail(next.path, errno);
    struct stat info;
    if (fstat(dirfd(dir.get()), &info) != 0) return Fail(next.path, errno);
    if (!seen_.insert({info.st_dev, info.st_ino}).second) return;
    ++result_.directories;
    while (true) {
      errno = 0;
      const struct dirent* entry = readdir(dir.get());
      if (entry == nullptr) break;
      const std::string name = entry->d_name;
      if (name != "." && name != "..") Entry(dirfd(dir.get()), next.path, name);
    }
    if (errno != 0) Fail(next.path, errno);
  }

  void Entry(int dir_fd, const std::string& directory, const std::string& name) {
    const std::string path = Join(directory, name);
    struct stat info;
    if (fstatat(dir_fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return Fail(path, errno);
    if (S_ISDIR(info.st_mode)) {
      pending_.push_back({path, false});
    } else if (S_ISREG(info.st_mode)) {
      AddFile(path, info);
    } else if (S_ISLNK(info.st_mode)) {
      ++result_.symlinks;
    } else {
      ++result_.specials;
    }
  }

  void AddFile(const std::string& path, const struct stat& info) {
    const FileKey key{info.st_dev, info.st_ino};
    names_[key].push_back(path);
    FoundFile& file = files_[key];
    file.identity = {info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size),
                     Nanoseconds(info.st_mtim), Nanoseconds(info.st_ctim)};
    file.mode = info.st_mode;
    file.uid = info.st_uid;
    file.gid = info.st_gid;
    file.stored = SaturatingMul(static_cast<uint64_t>(info.st_blocks), 512);
    file.block_device = S_ISBLK(info.st_mode);
  }

  std::vector<Pending> pending_;
  std::set<FileKey> seen_;  // directories
  std::map<FileKey, FoundFile> files_;
  std::map<FileKey, std::vector<std::string>> names_;
  Inventory result_;
};

}  // namespace

Result<Inventory> TakeInventory(const std::vector<std::string>& paths) {
  Walk walk;
  IMG_RETURN_IF_ERROR(walk.Run(paths));
  return walk.Take();
}

bool LiesBelow(const std::string& path, const std::vector<std::string>& roots) {
  std::error_code error;
  const fs::path target = fs::weakly_canonical(fs::absolute(path, error), error);
  if (error) return false;
  for (const std::string& root : roots) {
    if (!fs::is_directory(root, error)) continue;
    const fs::path folder = fs::canonical(root, error);
    if (error) continue;
    const auto [in_folder, in_target] =
        std::mismatch(folder.begin(), folder.end(), target.begin(), target.end());
    if (in_folder == folder.end()) return true;
  }
  return false;
}

}  // namespace imgfsck
