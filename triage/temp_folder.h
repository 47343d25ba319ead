// SPDX-License-Identifier: Apache-2.0
// A private folder below TMPDIR, gone with all that is in it when its owner is.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace imgfsck {

class TempFolder {
 public:
  static Result<TempFolder> Make();
  ~TempFolder();
  TempFolder(TempFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TempFolder& operator=(TempFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }

  const std::string& path() const { return path_; }

 private:
  explicit TempFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace imgfsck
