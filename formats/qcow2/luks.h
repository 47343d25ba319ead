// SPDX-License-Identifier: Apache-2.0
// The LUKS1 header inside a qcow2 image (sheet, section 10): what a check can see without the key.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "formats/qcow2/header.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

inline constexpr uint64_t kLuksHeaderSize = 592;  // bytes
inline constexpr uint32_t kLuksSlotActive = 0x00AC71F3, kLuksSlotInactive = 0x0000DEAD;
inline constexpr uint32_t kLuksStripes = 4000;
inline constexpr uint64_t kLuksFirstKeySector = 8;

struct EncryptionExtension {
  uint64_t offset = 0, length = 0;
};
std::optional<EncryptionExtension> ParseEncryptionExtension(const Extension& record);

struct LuksSlot {
  uint32_t state = 0, iterations = 0;
  std::array<uint8_t, 32> salt{};
  uint32_t key_sector = 0, stripes = 0;
};

struct LuksHeader {
  bool magic_ok = false;
  uint16_t version = 0;
  bool strings_terminated = false;
  std::string cipher, mode, hash, uuid;
  uint32_t payload_sector = 0, master_key_length = 0;
  std::array<uint8_t, 20> digest{};
  std::array<uint8_t, 32> digest_salt{};
  uint32_t digest_iterations = 0;
  std::array<LuksSlot, 8> slots{};

  bool cipher_known() const;
  uint64_t SlotSectors() const;  // that one key slot's material takes, rounded up to 8
};

// Nothing when the header's bytes are not all in the file.
std::optional<LuksHeader> ParseLuks(const ByteSource& source, uint64_t offset);

}  // namespace imgfsck::qcow2
