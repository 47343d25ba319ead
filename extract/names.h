// SPDX-License-Identifier: Apache-2.0
// Names and paths without what they say: as long as before, equal where they were equal, different
// where they were different, and of the same shape, so that a check judges them the same.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace imgfsck {

class Pseudonyms {
 public:
  // NULs stay where they are. Works on UTF-16 units as on bytes.
  std::u16string Name(const std::u16string& name);
  std::string Name(std::string_view name);
  // Every component of a path by itself; separators, dots, a scheme and a drive letter stay.
  std::u16string Path(const std::u16string& path);
  // A name under which a file was found becomes one under which something is always found, so that
  // nothing is reported missing in the copy only.
  std::string Path(std::string_view path, bool found);

 private:
  std::map<std::u16string, std::u16string> known_;
  std::map<size_t, uint64_t> used_;  // by length
};

// Runs of at least four printable characters become x, and so do all bytes of `bytes` that are not
// zero when `all` says so.
ByteVector WithoutText(Bytes bytes, bool all);

}  // namespace imgfsck
