// SPDX-License-Identifier: Apache-2.0
#include "triage/temp_folder.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/text.h"

namespace imgfsck {

Result<TempFolder> TempFolder::Make() {
  const char* base = std::getenv("TMPDIR");
  std::string path = base != nullptr && *base != '\0' ? base : "/tmp";
  path += "/imgtriage-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) {
    const int os_error = errno;
    path.resize(path.rfind('/'));
    return ErrorFromErrno(os_error, "make a temporary folder in " + Printable(path));
  }
  return TempFolder(path);
}

TempFolder::~TempFolder() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace imgfsck
