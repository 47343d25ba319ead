// SPDX-License-Identifier: Apache-2.0
// The options of a new image (names are qemu-img's), read and found to go together.
#pragma once

#include <optional>
#include <string>

#include "formats/driver.h"
#include "formats/qcow2/crypto.h"

namespace imgfsck::qcow2 {

struct CreatePlan {
  unsigned cluster_bits = 16, refcount_order = 4;
  bool v3 = true, lazy = false, extended = false, zstd = false, raw = false;
  std::string preallocation;
  std::string encryption;  // "", "aes" or "luks"
  std::string passphrase;
  LuksChoice luks;
  std::optional<std::string> backing, data_file;
  std::string backing_format;
};

// kInvalid: an option is unknown, or its value does not go.
Result<CreatePlan> ReadCreateOptions(const CreateOptions& options);

}  // namespace imgfsck::qcow2
