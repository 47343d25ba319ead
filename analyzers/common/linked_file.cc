// SPDX-License-Identifier: Apache-2.0
#include "analyzers/common/linked_file.h"

#include <sys/stat.h>

namespace imgfsck {
namespace {

// A plain path, as opposed to "nbd://…", "json:{…}" and the like.
bool IsPlainPath(const std::string& name) {
  if (name.empty() || name.find('\0') != std::string::npos) return false;
  size_t colon = name.find(':'), slash = name.find('/');
  return colon == std::string::npos || (slash != std::string::npos && slash < colon);
}

}  // namespace

std::string StandInName(size_t length, bool absolute) {
  std::string name;
  for (size_t i = 0; i < length; ++i) name.push_back((i % 2 == 0) == absolute ? '/' : '.');
  return name;
}

LinkedFile LookAtLinkedFile(const std::string& image_path, const std::string& name) {
  LinkedFile file;
  if (image_path.empty() || !IsPlainPath(name)) return file;
  size_t slash = image_path.rfind('/');
  bool as_given = name.starts_with('/') || slash == std::string::npos;
  file.path = as_given ? name : image_path.substr(0, slash + 1) + name;
  struct stat status = {}, own = {};
  const bool stand_in = name == StandInName(name.size(), name.starts_with('/'));
  if (stat(file.path.c_str(), &status) != 0 || (S_ISDIR(status.st_mode) && !stand_in)) {
    file.state = LinkedFile::State::kMissing;
    return file;
  }
  file.state = LinkedFile::State::kPresent;
  file.regular = S_ISREG(status.st_mode);
  file.size = file.regular ? static_cast<uint64_t>(status.st_size) : 0;
  file.mtime_seconds = status.st_mtim.tv_sec;
  if (stat(image_path.c_str(), &own) == 0 && own.st_dev == status.st_dev &&
      own.st_ino == status.st_ino) {
    file.state = LinkedFile::State::kItself;
  }
  return file;
}

}  // namespace imgfsck
