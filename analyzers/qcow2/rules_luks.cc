// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

Finding LuksFinding(const Image& image, Problem problem, std::string detail) {
  Finding f;
  f.problem = problem;
  f.structure = "luks";
  f.host = MakeHostRange(image.encryption->offset, kLuksHeaderSize);
  f.detail = std::move(detail);
  return f;
}

void JudgeSlots(const Image& image, const LuksHeader& luks, Findings* out) {
  auto add = [&](size_t slot, Problem problem, std::string_view what) {
    Finding f = LuksFinding(image, problem, fmt::format("slot {}: {}", slot, what));
    f.host = MakeHostRange(image.encryption->offset + 208 + 48 * slot, 48);
    out->Add(std::move(f));
  };
  uint64_t sectors = luks.SlotSectors();
  size_t active = 0;
  for (size_t i = 0; i < luks.slots.size(); ++i) {
    const LuksSlot& slot = luks.slots[i];
    bool is_active = slot.state == kLuksSlotActive;
    active += is_active;
    if (!is_active && slot.state != kLuksSlotInactive) {
      add(i, Problem::kQcow2LuksSlotState, "state " + Hex(slot.state));
    } else if (is_active && slot.iterations == 0) {
      add(i, Problem::kQcow2LuksSlotState, "active without iterations");
    }
    uint64_t end = slot.key_sector + sectors;
    bool overlaps = false;
    for (size_t j = 0; j < i; ++j) {
      uint64_t other = luks.slots[j].key_sector;
      overlaps |= slot.key_sector < other + sectors && other < end;
    }
    if (slot.stripes != kLuksStripes || slot.key_sector < kLuksFirstKeySector || overlaps ||
        end > luks.payload_sector) {
      add(i, Problem::kQcow2LuksSlotLayout,
          fmt::format("{} stripes at sector {}", slot.stripes, slot.key_sector));
    }
  }
  if (active == 0) out->Add(LuksFinding(image, Problem::kQcow2LuksNoSlot, ""));
}

}  // namespace

void JudgeLuks(const Image& image, Findings* out) {
  if (!image.encryption || image.header.crypt_method != kCryptLuks) return;
  const EncryptionExtension& e = *image.encryption;
  bool in_file = RangeFits(e.offset, e.length,
                           AlignUp(image.file_size, image.geometry.cluster_size));
  if (!in_file || e.length < kLuksHeaderSize) {
    out->Add(LuksFinding(image, Problem::kQcow2LuksInFile,
                         fmt::format("{}, {} bytes", Hex(e.offset), e.length)));
  }
  if (!image.luks) return;
  const LuksHeader& luks = *image.luks;
  if (!luks.magic_ok || luks.version != 1 || !luks.strings_terminated || !luks.cipher_known()) {
    out->Add(LuksFinding(image, Problem::kQcow2LuksHeader,
                         !luks.magic_ok ? "wrong magic"
                                        : fmt::format("version {}, cipher {}-{}", luks.version,
                                                      Printable(luks.cipher),
                                                      Printable(luks.mode))));
    return;
  }
  if (in_file && luks.payload_sector * kCompressedSector > AlignUp(e.length, kCompressedSector)) {
    out->Add(LuksFinding(image, Problem::kQcow2LuksInFile,
                         fmt::format("{} bytes, keys need {}", e.length,
                                     luks.payload_sector * kCompressedSector)));
  }
  JudgeSlots(image, luks, out);
}

}  // namespace imgfsck::qcow2
