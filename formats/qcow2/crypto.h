// SPDX-License-Identifier: Apache-2.0
// Encryption of guest data in sectors of 512 bytes (sheet, section 10): the legacy AES of method 1
// and LUKS1 with AES. Metadata and compressed clusters are never encrypted.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "formats/qcow2/image.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

// Safe to use from several threads at once. Offsets and lengths are multiples of 512.
class SectorCipher {
 public:
  virtual ~SectorCipher() = default;
  // `guest` and `host`: where the sectors are; a scheme uses one of them.
  virtual Status Encrypt(uint64_t guest, uint64_t host, MutableBytes sectors) const = 0;
  virtual Status Decrypt(uint64_t guest, uint64_t host, MutableBytes sectors) const = 0;
};

// Null for an image that is not encrypted. kNeedsKey without a passphrase, or with a wrong one
// (legacy AES cannot tell); kUnsupported for other ciphers than AES.
Result<std::unique_ptr<SectorCipher>> OpenCipher(const Image& image, std::string_view passphrase);

// LUKS encryption for a new image.
struct NewLuks {
  ByteVector header;  // header and key slots; goes to the start of the clusters set aside for it
};
struct LuksChoice {
  std::string mode = "xts-plain64", hash = "sha256";
  uint32_t key_bytes = 64;               // of AES; xts has two keys
  std::optional<unsigned> milliseconds;  // that trying a passphrase takes here; else a usual number
};
Result<NewLuks> MakeLuks(std::string_view passphrase, const LuksChoice& choice = {});

}  // namespace imgfsck::qcow2
