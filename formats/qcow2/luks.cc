// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/luks.h"

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

constexpr uint8_t kLuksMagic[] = {'L', 'U', 'K', 'S', 0xBA, 0xBE};

std::string FixedString(Bytes bytes, bool* terminated) {
  auto end = std::find(bytes.begin(), bytes.end(), uint8_t{0});
  if (end == bytes.end()) *terminated = false;
  return std::string(AsText(bytes.first(static_cast<size_t>(end - bytes.begin()))));
}

}  // namespace

std::optional<EncryptionExtension> ParseEncryptionExtension(const Extension& record) {
  if (record.length != kEncryptionExtLength || record.data.size() < kEncryptionExtLength) {
    return std::nullopt;
  }
  return EncryptionExtension{BeAt<uint64_t>(record.data, 0), BeAt<uint64_t>(record.data, 8)};
}

bool LuksHeader::cipher_known() const {
  static constexpr std::string_view kCiphers[] = {"aes", "serpent", "twofish", "cast5"};
  static constexpr std::string_view kModes[] = {"xts-", "cbc-", "ecb", "ctr-"};
  return std::ranges::find(kCiphers, cipher) != std::end(kCiphers) &&
         std::ranges::any_of(kModes, [&](auto prefix) { return mode.starts_with(prefix); });
}

uint64_t LuksHeader::SlotSectors() const {
  return AlignUp(DivRoundUp(uint64_t{master_key_length} * kLuksStripes, kCompressedSector), 8);
}

std::optional<LuksHeader> ParseLuks(const ByteSource& source, uint64_t offset) {
  std::array<uint8_t, kLuksHeaderSize> bytes{};
  if (!RangeFits(offset, bytes.size(), source.Size()) || !ReadExact(source, offset, bytes)) {
    return std::nullopt;
  }
  Bytes b = bytes;
  LuksHeader h;
  h.magic_ok = std::equal(std::begin(kLuksMagic), std::end(kLuksMagic), b.begin());
  h.version = BeAt<uint16_t>(b, 6);
  h.strings_terminated = true;
  h.cipher = FixedString(b.subspan(8, 32), &h.strings_terminated);
  h.mode = FixedString(b.subspan(40, 32), &h.strings_terminated);
  h.hash = FixedString(b.subspan(72, 32), &h.strings_terminated);
  h.payload_sector = BeAt<uint32_t>(b, 104);
  h.master_key_length = BeAt<uint32_t>(b, 108);
  std::copy_n(b.begin() + 112, 20, h.digest.begin());
  std::copy_n(b.begin() + 132, 32, h.digest_salt.begin());
  h.digest_iterations = BeAt<uint32_t>(b, 164);
  h.uuid = FixedString(b.subspan(168, 40), &h.strings_terminated);
  for (size_t i = 0; i < h.slots.size(); ++i) {
    Bytes s = b.subspan(208 + 48 * i, 48);
    LuksSlot& slot = h.slots[i];
    slot.state = BeAt<uint32_t>(s, 0);
    slot.iterations = BeAt<uint32_t>(s, 4);
    std::copy_n(s.begin() + 8, 32, slot.salt.begin());
    slot.key_sector = BeAt<uint32_t>(s, 40);
    slot.stripes = BeAt<uint32_t>(s, 44);
  }
  return h;
}

}  // namespace imgfsck::qcow2
