// SPDX-License-Identifier: Apache-2.0
#include "io/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <new>

#include "base/result.h"

namespace imgfsck {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  const bool made =
      impl_->context != nullptr && EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1;
  if (made) return;
  // libcrypto got no memory: what happens is what happens when `new` gets none.
  if (const std::new_handler handler = std::get_new_handler(); handler != nullptr) handler();
  IMG_CHECK(made);
}

Sha256::~Sha256() = default;

void Sha256::Add(Bytes bytes) {
  IMG_CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

void Sha256::AddNumber(uint64_t number) {
  std::array<uint8_t, sizeof number> bytes;
  StoreLe(bytes.data(), number);
  Add(bytes);
}

std::string Sha256::HexDigest() {
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  IMG_CHECK(EVP_DigestFinal_ex(impl_->context, digest.data(), &length) == 1);
  return HexEncode(Bytes(digest).first(length));
}

std::string HexSha256(Bytes bytes) {
  Sha256 hash;
  hash.Add(bytes);
  return hash.HexDigest();
}

}  // namespace imgfsck
