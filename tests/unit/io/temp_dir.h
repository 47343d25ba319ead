// SPDX-License-Identifier: Apache-2.0
// A directory of a test's own, gone afterwards.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "imgfsck-test-XXXXXX").string();
    IMG_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string File(const std::string& name) const { return path_ + "/" + name; }
  // The file NAME with these bytes; its path.
  std::string Put(const std::string& name, std::string_view content) const {
    std::ofstream(File(name), std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
    return File(name);
  }
  std::string Get(const std::string& name) const {
    std::ifstream file(File(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  size_t Entries() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      count += entry.path().empty() ? 0 : 1;
    }
    return count;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace imgfsck
