// SPDX-License-Identifier: Apache-2.0
// Unlocks an encrypted image, and makes the LUKS header of a new one. Work that a hostile header
// can ask for is bounded: one try a key slot, each with limited iterations.
#include "formats/qcow2/crypto.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

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
  if (auto read = ReadExact(*image.source, at, material); !read) {
    if (read.error().code == ErrorCode::kIo) return std::move(read).error();
    return ByteVector();  // it does not lie in the file
  }
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

namespace {

constexpr uint32_t kUsualIterations = 200000, kLeastIterations = 1000;
constexpr uint32_t kSlots = 8;

Result<uint32_t> IterationsFor(const LuksChoice& choice) {
  if (!choice.milliseconds) return kUsualIterations;
  constexpr uint32_t kTrial = 20000;
  const ByteVector secret(16), salt(32);
  auto start = std::chrono::steady_clock::now();
  IMG_RETURN_IF_ERROR(Pbkdf2(choice.hash, secret, salt, kTrial, choice.key_bytes));
  std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  double wanted = kTrial * (*choice.milliseconds / std::max(took.count(), 0.01));
  return static_cast<uint32_t>(std::clamp<double>(wanted, kLeastIterations, kMostIterations));
}

std::string RandomUuid(Bytes random) {
  std::string hex = HexEncode(random);
  hex[12] = '4';
  hex[16] = '8';
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                     hex.substr(16, 4), hex.substr(20));
}

// The fields that need no secret; all slots empty.
void PutLuksFields(const LuksChoice& choice, uint32_t slot_sectors, MutableBytes b) {
  auto text = [&](size_t at, std::string_view value) { std::ranges::copy(value, &b[at]); };
  std::ranges::copy(std::initializer_list<uint8_t>{'L', 'U', 'K', 'S', 0xBA, 0xBE}, b.begin());
  PutBe<uint16_t>(b, 6, 1);
  text(8, "aes");
  text(40, choice.mode);
  text(72, choice.hash);
  PutBe<uint32_t>(b, 104, static_cast<uint32_t>(b.size() / kSector));
  PutBe<uint32_t>(b, 108, choice.key_bytes);
  for (uint32_t i = 0; i < kSlots; ++i) {
    size_t slot = 208 + 48 * i;
    PutBe<uint32_t>(b, slot, kLuksSlotInactive);
    PutBe<uint32_t>(b, slot + 40, static_cast<uint32_t>(kLuksFirstKeySector) + i * slot_sectors);
    PutBe<uint32_t>(b, slot + 44, kLuksStripes);
  }
}

// The master key into slot 0.
Status FillSlot(const LuksChoice& choice, Bytes passphrase, uint32_t iterations, Bytes salt,
                Bytes key, MutableBytes b) {
  PutBe<uint32_t>(b, 208, kLuksSlotActive);
  PutBe<uint32_t>(b, 212, iterations);
  std::ranges::copy(salt, &b[216]);
  IMG_ASSIGN_OR_RETURN(ByteVector slot_key,
                       Pbkdf2(choice.hash, passphrase, salt, iterations, key.size()));
  IMG_ASSIGN_OR_RETURN(ByteVector material, AfSplit(choice.hash, key, kLuksStripes));
  IMG_ASSIGN_OR_RETURN(auto cipher, BlockCipher::Make("aes", choice.mode, slot_key));
  IMG_RETURN_IF_ERROR(cipher->Run(0, material, true));
  std::ranges::copy(material, &b[kLuksFirstKeySector * kSector]);
  return Ok();
}

}  // namespace

Result<NewLuks> MakeLuks(std::string_view passphrase, const LuksChoice& choice) {
  if (passphrase.empty()) {
    return Error{ErrorCode::kNeedsKey, "an encrypted image needs a passphrase", {}};
  }
  LuksHeader shape;
  shape.master_key_length = choice.key_bytes;
  const uint32_t slot_sectors = static_cast<uint32_t>(shape.SlotSectors());
  NewLuks made{ByteVector((kLuksFirstKeySector + kSlots * slot_sectors) * kSector)};
  MutableBytes b = made.header;
  PutLuksFields(choice, slot_sectors, b);
  IMG_ASSIGN_OR_RETURN(const uint32_t iterations, IterationsFor(choice));
  IMG_ASSIGN_OR_RETURN(ByteVector random, RandomBytes(choice.key_bytes + 32 + 32 + 16));
  Bytes key = Bytes(random).first(choice.key_bytes),
        digest_salt = Bytes(random).subspan(choice.key_bytes, 32),
        slot_salt = Bytes(random).subspan(choice.key_bytes + 32, 32), id = Bytes(random).last(16);
  const uint32_t digest_iterations = std::max(iterations / 8, kLeastIterations);
  IMG_ASSIGN_OR_RETURN(ByteVector digest,
                       Pbkdf2(choice.hash, key, digest_salt, digest_iterations, 20));
  std::ranges::copy(digest, &b[112]);
  std::ranges::copy(digest_salt, &b[132]);
  PutBe<uint32_t>(b, 164, digest_iterations);
  std::ranges::copy(RandomUuid(id), &b[168]);
  IMG_RETURN_IF_ERROR(FillSlot(choice, AsBytes(passphrase), iterations, slot_salt, key, b));
  return made;
}

}  // namespace imgfsck::qcow2
