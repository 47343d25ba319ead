// SPDX-License-Identifier: Apache-2.0
// By those functions of libcrypto that need no library to be started: EVP in 3.0 reads a
// configuration file, makes thousands of allocations, and crashes when one of them fails.
#include "io/sha256.h"

#include <openssl/sha.h>

#include <array>

#include "base/result.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // 3.0 would have EVP used

namespace imgfsck {

struct Sha256::Impl {
  SHA256_CTX context;
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) { IMG_CHECK(SHA256_Init(&impl_->context) == 1); }

Sha256::~Sha256() = default;

void Sha256::Add(Bytes bytes) {
  IMG_CHECK(SHA256_Update(&impl_->context, bytes.data(), bytes.size()) == 1);
}

void Sha256::AddNumber(uint64_t number) {
  std::array<uint8_t, sizeof number> bytes;
  StoreLe(bytes.data(), number);
  Add(bytes);
}

std::string Sha256::HexDigest() {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest;
  IMG_CHECK(SHA256_Final(digest.data(), &impl_->context) == 1);
  return HexEncode(digest);
}

std::string HexSha256(Bytes bytes) {
  Sha256 hash;
  hash.Add(bytes);
  return hash.HexDigest();
}

}  // namespace imgfsck

#pragma GCC diagnostic pop
