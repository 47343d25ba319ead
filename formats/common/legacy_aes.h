// SPDX-License-Identifier: Apache-2.0
// The old encryption of qcow and qcow2 (crypt_method 1): AES-128-CBC over 512-byte guest sectors,
// the initial vector being the guest sector number. The passphrase is the key. Nothing in an image
// tells a right key from a wrong one.
#pragma once

#include <array>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

// Safe to use from several threads at once.
class LegacyAes {
 public:
  // The first 16 bytes of the passphrase, padded with zeros, are the key.
  explicit LegacyAes(std::string_view passphrase);

  // In place. `guest_offset` and the length are multiples of 512.
  Status Encrypt(uint64_t guest_offset, MutableBytes sectors) const;
  Status Decrypt(uint64_t guest_offset, MutableBytes sectors) const;

 private:
  Status Run(uint64_t guest_offset, MutableBytes sectors, bool encrypt) const;
  std::array<uint8_t, 16> key_{};
};

}  // namespace imgfsck
