// SPDX-License-Identifier: Apache-2.0
// The passphrase that --password-file names.
#pragma once

#include <string>

#include "base/result.h"

namespace imgfsck {

// The file's bytes, without a newline at their end. It may be a pipe. What is longer than any
// passphrase, or never ends, is an error.
Result<std::string> ReadPassphrase(const std::string& path);

}  // namespace imgfsck
