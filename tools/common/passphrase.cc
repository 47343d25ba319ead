// SPDX-License-Identifier: Apache-2.0
#include "tools/common/passphrase.h"

#include <fstream>

#include "base/text.h"

namespace imgfsck {
namespace {

constexpr size_t kLongestPassphrase = 64 * 1024;  // bytes

}  // namespace

Result<std::string> ReadPassphrase(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kLongestPassphrase + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (!in.eof() || in.bad() || text.size() > kLongestPassphrase) {
    return Error{ErrorCode::kIo, "cannot read the passphrase from " + Printable(path), {}};
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace imgfsck
