// SPDX-License-Identifier: Apache-2.0
#include "triage/temp_folder.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace imgfsck {

Result<TempFolder> TempFolder::Make() {
  const char* base = std::getenv("TMPDIR");
  std::string path = base != nullptr && *base != '\0' ? base : "/tmp";
  path += "/imgtriage-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return ErrorFromErrno(errno, "make a folder below TMPDIR");
  return TempFolder(path);
}

TempFolder::~TempFolder() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace imgfsck
