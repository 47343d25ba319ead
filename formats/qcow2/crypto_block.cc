// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/crypto_block.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>

#include "base/units.h"

namespace imgfsck::qcow2 {
namespace {

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

Error CryptoFailed() { return {ErrorCode::kInvalid, "the cipher library refused to work", {}}; }

Error NotSupported(std::string_view what) {
  return {ErrorCode::kUnsupported, fmt::format("encryption with {} is not supported", what), {}};
}

const EVP_CIPHER* AesEcb(size_t key_length) {
  switch (key_length) {
    case 16:
      return EVP_aes_128_ecb();
    case 24:
      return EVP_aes_192_ecb();
    case 32:
      return EVP_aes_256_ecb();
    default:
      return nullptr;
  }
}

const EVP_CIPHER* AesFor(std::string_view chain, size_t key_length) {
  if (chain == "xts") {
    if (key_length == 32) return EVP_aes_128_xts();
    return key_length == 64 ? EVP_aes_256_xts() : nullptr;
  }
  if (chain == "ecb") return AesEcb(key_length);
  if (chain != "cbc") return nullptr;
  switch (key_length) {
    case 16:
      return EVP_aes_128_cbc();
    case 24:
      return EVP_aes_192_cbc();
    case 32:
      return EVP_aes_256_cbc();
    default:
      return nullptr;
  }
}

const EVP_MD* Digest(std::string_view hash) {
  return EVP_get_digestbyname(std::string(hash).c_str());
}

Result<ByteVector> HashOf(const EVP_MD* digest, std::span<const Bytes> parts) {
  struct FreeDigest {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
  if (!context || EVP_DigestInit_ex(context.get(), digest, nullptr) != 1) return CryptoFailed();
  for (Bytes part : parts) {
    if (EVP_DigestUpdate(context.get(), part.data(), part.size()) != 1) return CryptoFailed();
  }
  ByteVector out(static_cast<size_t>(EVP_MD_get_size(digest)));
  if (EVP_DigestFinal_ex(context.get(), out.data(), nullptr) != 1) return CryptoFailed();
  return out;
}

// One round of diffusion: every digest-sized piece of the block becomes its hash.
Status Diffuse(const EVP_MD* digest, MutableBytes block) {
  size_t step = static_cast<size_t>(EVP_MD_get_size(digest));
  uint32_t number = 0;
  for (size_t at = 0; at < block.size(); at += step, ++number) {
    MutableBytes piece = block.subspan(at, std::min(step, block.size() - at));
    std::array<uint8_t, 4> index{};
    StoreBe(index.data(), number);
    std::array<Bytes, 2> parts{Bytes(index), Bytes(piece)};
    IMG_ASSIGN_OR_RETURN(ByteVector hash, HashOf(digest, parts));
    std::copy_n(hash.begin(), piece.size(), piece.begin());
  }
  return Ok();
}

// What the last stripe is xored with, given all stripes before it.
Result<ByteVector> Accumulate(const EVP_MD* digest, Bytes stripes, size_t length) {
  ByteVector sum(length);
  for (size_t at = 0; at < stripes.size(); at += length) {
    for (size_t i = 0; i < length; ++i) sum[i] = static_cast<uint8_t>(sum[i] ^ stripes[at + i]);
    IMG_RETURN_IF_ERROR(Diffuse(digest, sum));
  }
  return sum;
}

}  // namespace

Result<std::unique_ptr<BlockCipher>> BlockCipher::Make(std::string_view cipher,
                                                       std::string_view mode, Bytes key) {
  std::string_view chain = mode.substr(0, mode.find('-'));
  std::string_view vector = mode.find('-') == std::string_view::npos
                                ? std::string_view()
                                : mode.substr(mode.find('-') + 1);
  std::unique_ptr<BlockCipher> made(new BlockCipher);
  made->key_.assign(key.begin(), key.end());
  const EVP_CIPHER* evp = cipher == "aes" ? AesFor(chain, key.size()) : nullptr;
  if (evp == nullptr) return NotSupported(fmt::format("{}-{}", cipher, mode));
  made->evp_ = evp;
  if (vector == "plain") {
    made->vector_ = Vector::kPlain;
  } else if (vector == "plain64") {
    made->vector_ = Vector::kPlain64;
  } else if (vector.starts_with("essiv:")) {
    const EVP_MD* digest = Digest(vector.substr(6));
    if (digest == nullptr) return NotSupported(mode);
    std::array<Bytes, 1> parts{key};
    IMG_ASSIGN_OR_RETURN(made->essiv_key_, HashOf(digest, parts));
    const EVP_CIPHER* essiv = AesEcb(made->essiv_key_.size());
    if (essiv == nullptr) return NotSupported(mode);
    made->vector_ = Vector::kEssiv;
    made->essiv_evp_ = essiv;
  } else if (chain != "ecb") {
    return NotSupported(fmt::format("{}-{}", cipher, mode));
  }
  return made;
}

Status BlockCipher::MakeVector(uint64_t sector, uint8_t* vector) const {
  std::fill_n(vector, 16, uint8_t{0});
  if (vector_ == Vector::kPlain) {
    StoreLe<uint32_t>(vector, static_cast<uint32_t>(sector));
  } else if (vector_ != Vector::kNone) {
    StoreLe<uint64_t>(vector, sector);
  }
  if (vector_ != Vector::kEssiv) return Ok();
  CipherContext context(EVP_CIPHER_CTX_new());
  int written = 0;
  if (!context ||
      EVP_EncryptInit_ex(context.get(), static_cast<const EVP_CIPHER*>(essiv_evp_), nullptr,
                         essiv_key_.data(), nullptr) != 1 ||
      EVP_CIPHER_CTX_set_padding(context.get(), 0) != 1 ||
      EVP_EncryptUpdate(context.get(), vector, &written, vector, 16) != 1 || written != 16) {
    return CryptoFailed();
  }
  return Ok();
}

Status BlockCipher::Run(uint64_t sector, MutableBytes bytes, bool encrypt) const {
  CipherContext context(EVP_CIPHER_CTX_new());
  if (!context || EVP_CipherInit_ex(context.get(), static_cast<const EVP_CIPHER*>(evp_), nullptr,
                                    key_.data(), nullptr, encrypt ? 1 : 0) != 1) {
    return CryptoFailed();
  }
  EVP_CIPHER_CTX_set_padding(context.get(), 0);
  for (size_t at = 0; at < bytes.size(); at += kSector, ++sector) {
    std::array<uint8_t, 16> vector{};
    IMG_RETURN_IF_ERROR(MakeVector(sector, vector.data()));
    int length = static_cast<int>(std::min<size_t>(kSector, bytes.size() - at)), written = 0;
    if (EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, vector.data(), -1) != 1 ||
        EVP_CipherUpdate(context.get(), &bytes[at], &written, &bytes[at], length) != 1 ||
        written != length) {
      return CryptoFailed();
    }
  }
  return Ok();
}

Result<ByteVector> Pbkdf2(std::string_view hash, Bytes secret, Bytes salt, uint32_t iterations,
                          size_t length) {
  const EVP_MD* digest = Digest(hash);
  if (digest == nullptr) return NotSupported(hash);
  if (iterations == 0 || iterations > (1u << 30)) return CryptoFailed();
  ByteVector out(length);
  if (PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(secret.data()),
                        static_cast<int>(secret.size()), salt.data(), static_cast<int>(salt.size()),
                        static_cast<int>(iterations), digest, static_cast<int>(length),
                        out.data()) != 1) {
    return CryptoFailed();
  }
  return out;
}

Result<ByteVector> AfMerge(std::string_view hash, Bytes split, uint32_t stripes) {
  const EVP_MD* digest = Digest(hash);
  if (digest == nullptr) return NotSupported(hash);
  size_t length = split.size() / stripes;
  IMG_ASSIGN_OR_RETURN(ByteVector key,
                       Accumulate(digest, split.first(length * (stripes - 1)), length));
  Bytes last = split.last(length);
  for (size_t i = 0; i < length; ++i) key[i] = static_cast<uint8_t>(key[i] ^ last[i]);
  return key;
}

Result<ByteVector> AfSplit(std::string_view hash, Bytes key, uint32_t stripes) {
  const EVP_MD* digest = Digest(hash);
  if (digest == nullptr) return NotSupported(hash);
  IMG_ASSIGN_OR_RETURN(ByteVector split, RandomBytes(key.size() * (stripes - 1)));
  IMG_ASSIGN_OR_RETURN(ByteVector last, Accumulate(digest, split, key.size()));
  for (size_t i = 0; i < key.size(); ++i) last[i] = static_cast<uint8_t>(last[i] ^ key[i]);
  split.insert(split.end(), last.begin(), last.end());
  return split;
}

Result<ByteVector> RandomBytes(size_t count) {
  ByteVector out(count);
  if (RAND_bytes(out.data(), static_cast<int>(count)) != 1) return CryptoFailed();
  return out;
}

}  // namespace imgfsck::qcow2
