// SPDX-License-Identifier: Apache-2.0
// AES in the modes that LUKS1 headers name, over OpenSSL. Knows nothing of images.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck::qcow2 {

// One key in one mode; sectors are numbered. Safe to use from several threads at once.
class BlockCipher {
 public:
  // cipher "aes", mode as in the LUKS header ("xts-plain64", "cbc-essiv:sha256" …).
  static Result<std::unique_ptr<BlockCipher>> Make(std::string_view cipher, std::string_view mode,
                                                   Bytes key);
  // In place; the first sector has number `sector`.
  Status Run(uint64_t sector, MutableBytes bytes, bool encrypt) const;

 private:
  enum class Vector { kNone, kPlain, kPlain64, kEssiv };
  BlockCipher() = default;
  Status MakeVector(uint64_t sector, uint8_t* vector) const;
  const void* evp_ = nullptr;  // EVP_CIPHER
  const void* essiv_evp_ = nullptr;
  Vector vector_ = Vector::kNone;
  ByteVector key_, essiv_key_;
};

Result<ByteVector> Pbkdf2(std::string_view hash, Bytes secret, Bytes salt, uint32_t iterations,
                          size_t length);

// The anti-forensic splitter of LUKS: a key spread over `stripes` blocks, all of which are needed.
Result<ByteVector> AfMerge(std::string_view hash, Bytes split, uint32_t stripes);
Result<ByteVector> AfSplit(std::string_view hash, Bytes key, uint32_t stripes);

Result<ByteVector> RandomBytes(size_t count);

}  // namespace imgfsck::qcow2
