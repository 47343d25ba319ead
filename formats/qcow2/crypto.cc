// SPDX-License-Identifier: Apache-2.0
// Unlocks an encrypted image, and makes the LUKS header of a new one. Work that a hostile header
// can ask for is bounded: one try a key slot, each with limited iterations.
#include "formats/qcow2/crypto.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/common/legacy_aes.h"
#include "formats/qcow2/crypto_block.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint32_t kMostIterations = 50000000;  // tens of seconds
constexpr uint32_t kMostKeyBytes = 64;

class AesCipher : public SectorCipher {
 public:
  explicit AesCipher(std::string_view passphrase) : aes_(passphrase) {}
  Status Encrypt(uint64_t guest, uint64_t, MutableBytes sectors) const override {
    return aes_.Encrypt(guest, sectors);
  }
  Status Decrypt(uint64_t guest, uint64_t, MutableBytes sectors) const override {
    return aes_.Decrypt(guest, sectors);
  }

 private:
  LegacyAes aes_;
};

class LuksCipher : public SectorCipher {
 public:
  explicit LuksCipher(std::unique_ptr<BlockCipher> cipher) : cipher_(std::move(cipher)) {}
  Status Encrypt(uint64_t, uint64_t host, MutableBytes sectors) const override {
    return cipher_->Run(host / kSector, sectors, true);
  }
  Status Decrypt(uint64_t, uint64_t host, MutableBytes sectors) const override {
    return cipher_->Run(host / kSector, sectors, false);
  }

 private:
  std::unique_ptr<BlockCipher> cipher_;
};

Error BadLuks(const char* why) {
  return {ErrorCode::kInvalid, fmt::format("the LUKS header cannot be used: {}", why), {}};
}

Status CheckLuks(const LuksHeader& h) {
  if (!h.magic_ok || h.version != 1) return BadLuks("no LUKS version 1 magic");
  if (!h.strings_terminated) return BadLuks("a name in it has no end");
  if (h.master_key_length == 0 || h.master_key_length > kMostKeyBytes) {
    return BadLuks("the key length makes no sense");
  }
  if (h.digest_iterations == 0 || h.digest_iterations > kMostIterations) {
    return BadLuks("the iteration count makes no sense");
  }
  return Ok();
}

// The master key from one slot; empty when the passphrase does not open it.
Result<ByteVector> TrySlot(const Image& image, const LuksHeader& h, const LuksSlot& slot,
                           Bytes passphrase) {
  if (slot.iterations == 0 || slot.iterations > kMostIterations || slot.stripes != kLuksStripes) {
    return ByteVector();
  }
  size_t length = h.master_key_length;
  IMG_ASSIGN_OR_RETURN(ByteVector slot_key,
                       Pbkdf2(h.hash, passphrase, slot.salt, slot.iterations, length));
  ByteVector material(length * kLuksStripes);
  uint64_t at = SaturatingAdd(image.encryption->offset, uint64_t{slot.key_sector} * kSector);
  if (auto read = ReadExact(*image.source, at, material); !read) return ByteVector();
  IMG_ASSIGN_OR_RETURN(auto cipher, BlockCipher::Make(h.cipher, h.mode, slot_key));
  IMG_RETURN_IF_ERROR(cipher->Run(0, material, false));
  IMG_ASSIGN_OR_RETURN(ByteVector key, AfMerge(h.hash, material, kLuksStripes));
  IMG_ASSIGN_OR_RETURN(ByteVector digest,
                       Pbkdf2(h.hash, key, h.digest_salt, h.digest_iterations, h.digest.size()));
  if (!std::ranges::equal(digest, h.digest)) return ByteVector();
  return key;
}

Result<std::unique_ptr<SectorCipher>> OpenLuks(const Image& image, std::string_view passphrase) {
  if (!image.luks) return BadLuks("it is not in the file");
  const LuksHeader& h = *image.luks;
  IMG_RETURN_IF_ERROR(CheckLuks(h));
  for (const LuksSlot& slot : h.slots) {
    if (slot.state != kLuksSlotActive) continue;
    IMG_ASSIGN_OR_RETURN(ByteVector key, TrySlot(image, h, slot, AsBytes(passphrase)));
    if (key.empty()) continue;
    IMG_ASSIGN_OR_RETURN(auto cipher, BlockCipher::Make(h.cipher, h.mode, key));
    return std::unique_ptr<SectorCipher>(new LuksCipher(std::move(cipher)));
  }
  return Error{ErrorCode::kNeedsKey, "the passphrase opens no key slot of the image", {}};
}

}  // namespace

Result<std::unique_ptr<SectorCipher>> OpenCipher(const Image& image, std::string_view passphrase) {
  switch (image.header.crypt_method) {
    case kCryptNone:
      return std::unique_ptr<SectorCipher>();
    case kCryptAes:
    case kCryptLuks:
      break;
    default:
      return Error{ErrorCode::kUnsupported, "unknown encryption method", {}};
  }
  if (passphrase.empty()) {
    return Error{ErrorCode::kNeedsKey, "the image is encrypted: a passphrase is needed", {}};
  }
  if (image.header.crypt_method == kCryptLuks) return OpenLuks(image, passphrase);
  return std::unique_ptr<SectorCipher>(new AesCipher(passphrase));
}

Result<NewLuks> MakeLuks(std::string_view passphrase, uint32_t iterations) {
  constexpr std::string_view kCipher = "aes", kMode = "xts-plain64", kHash = "sha256";
  constexpr uint32_t kKeyBytes = 64, kSlots = 8, kSlotSectors = 504;
  constexpr uint32_t kPayload = kLuksFirstKeySector + kSlots * kSlotSectors;
  static_assert(kPayload == 4040);
  if (passphrase.empty()) {
    return Error{ErrorCode::kNeedsKey, "an encrypted image needs a passphrase", {}};
  }
  NewLuks made{ByteVector(kPayload * kSector)};
  MutableBytes b = made.header;
  auto text = [&](size_t at, std::string_view value) { std::ranges::copy(value, &b[at]); };
  IMG_ASSIGN_OR_RETURN(ByteVector random, RandomBytes(kKeyBytes + 32 + 32 + 16));
  Bytes key = Bytes(random).first(kKeyBytes), digest_salt = Bytes(random).subspan(kKeyBytes, 32),
        slot_salt = Bytes(random).subspan(kKeyBytes + 32, 32), id = Bytes(random).last(16);
  std::ranges::copy(std::initializer_list<uint8_t>{'L', 'U', 'K', 'S', 0xBA, 0xBE}, b.begin());
  PutBe<uint16_t>(b, 6, 1);
  text(8, kCipher);
  text(40, kMode);
  text(72, kHash);
  PutBe<uint32_t>(b, 104, kPayload);
  PutBe<uint32_t>(b, 108, kKeyBytes);
  IMG_ASSIGN_OR_RETURN(ByteVector digest, Pbkdf2(kHash, key, digest_salt, iterations / 8 + 1, 20));
  std::ranges::copy(digest, &b[112]);
  std::ranges::copy(digest_salt, &b[132]);
  PutBe<uint32_t>(b, 164, iterations / 8 + 1);
  std::string hex = HexEncode(id);
  hex[12] = '4';
  hex[16] = '8';
  text(168, fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                        hex.substr(16, 4), hex.substr(20)));
  for (uint32_t i = 0; i < kSlots; ++i) {
    size_t slot = 208 + 48 * i;
    PutBe<uint32_t>(b, slot, i == 0 ? kLuksSlotActive : kLuksSlotInactive);
    PutBe<uint32_t>(b, slot + 40, static_cast<uint32_t>(kLuksFirstKeySector) + i * kSlotSectors);
    PutBe<uint32_t>(b, slot + 44, kLuksStripes);
  }
  PutBe<uint32_t>(b, 212, iterations);
  std::ranges::copy(slot_salt, &b[216]);
  IMG_ASSIGN_OR_RETURN(ByteVector slot_key,
                       Pbkdf2(kHash, AsBytes(passphrase), slot_salt, iterations, kKeyBytes));
  IMG_ASSIGN_OR_RETURN(ByteVector material, AfSplit(kHash, key, kLuksStripes));
  IMG_ASSIGN_OR_RETURN(auto cipher, BlockCipher::Make(kCipher, kMode, slot_key));
  IMG_RETURN_IF_ERROR(cipher->Run(0, material, true));
  std::ranges::copy(material, &b[kLuksFirstKeySector * kSector]);
  return made;
}

}  // namespace imgfsck::qcow2
