// SPDX-License-Identifier: Apache-2.0
// Runs OpenSSL's AES-128-CBC sector by sector; must not touch anything but the buffer it is given.
#include "formats/common/legacy_aes.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "base/checked.h"
#include "base/units.h"

namespace imgfsck {
namespace {

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

Error CipherError() { return {ErrorCode::kInvalid, "the AES library refused to work", {}}; }

}  // namespace

LegacyAes::LegacyAes(std::string_view passphrase) {
  size_t used = std::min(passphrase.size(), key_.size());
  std::copy_n(passphrase.begin(), used, key_.begin());
}

Status LegacyAes::Encrypt(uint64_t guest_offset, MutableBytes sectors) const {
  return Run(guest_offset, sectors, true);
}

Status LegacyAes::Decrypt(uint64_t guest_offset, MutableBytes sectors) const {
  return Run(guest_offset, sectors, false);
}

Status LegacyAes::Run(uint64_t guest_offset, MutableBytes sectors, bool encrypt) const {
  IMG_CHECK(IsAligned(guest_offset, kSector) && IsAligned(sectors.size(), kSector));
  std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context(EVP_CIPHER_CTX_new());
  if (!context || EVP_CipherInit_ex(context.get(), EVP_aes_128_cbc(), nullptr, key_.data(), nullptr,
                                    encrypt ? 1 : 0) != 1) {
    return CipherError();
  }
  EVP_CIPHER_CTX_set_padding(context.get(), 0);
  for (size_t at = 0; at < sectors.size(); at += kSector) {
    std::array<uint8_t, 16> vector{};  // sector number, little endian, then zeros
    StoreLe<uint64_t>(vector.data(), (guest_offset + at) / kSector);
    int written = 0;
    if (EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, vector.data(), -1) != 1 ||
        EVP_CipherUpdate(context.get(), sectors.data() + at, &written, sectors.data() + at,
                         static_cast<int>(kSector)) != 1 ||
        written != static_cast<int>(kSector)) {
      return CipherError();
    }
  }
  return Ok();
}

}  // namespace imgfsck
