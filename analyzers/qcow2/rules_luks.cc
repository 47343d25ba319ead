// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/luks_rules.h"
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

// The key material of every slot in use lies in the part of the file that the extension names: a
// reader gets all that it asks for.
bool KeysReachable(const LuksHeader& luks, uint64_t length) {
  return std::ranges::all_of(luks.slots, [&](const LuksSlot& slot) {
    return slot.state != kLuksSlotActive ||
           RangeFits(slot.key_sector * kCompressedSector,
                     uint64_t{luks.master_key_length} * slot.stripes, length);
  });
}

void JudgeSlots(const Image& image, const LuksHeader& luks, Findings* out) {
  const uint64_t payload = PayloadSector(luks, image.encryption->length);
  size_t active = 0;
  bool restorable = false;
  for (size_t i = 0; i < luks.slots.size(); ++i) {
    const LuksSlot& slot = luks.slots[i];
    active += slot.state == kLuksSlotActive;
    const SlotVerdict verdict = JudgeSlot(luks, i, payload);
    restorable |= verdict.state == kLuksSlotActive;
    auto add = [&](Problem problem, std::string_view what, RepairClass repair) {
      Finding f = LuksFinding(image, problem, fmt::format("slot {}: {}", i, what));
      f.host = MakeHostRange(image.encryption->offset + kLuksSlotsOffset + kLuksSlotSize * i,
                             kLuksSlotSize);
      f.repair = repair;
      out->Add(std::move(f));
    };
    if (!verdict.bad_state.empty()) {
      add(Problem::kQcow2LuksSlotState, verdict.bad_state, verdict.state_repair);
    }
    if (verdict.bad_layout) {
      add(Problem::kQcow2LuksSlotLayout,
          fmt::format("{} stripes at sector {}", slot.stripes, slot.key_sector),
          verdict.layout_repair);
    }
  }
  if (payload != luks.payload_sector) {
    Finding f = LuksFinding(
        image, Problem::kQcow2LuksSlotLayout,
        fmt::format("the keys end at sector {}, the header says {}", payload, luks.payload_sector));
    f.host = MakeHostRange(image.encryption->offset + kLuksPayloadOffset, 4);
    f.repair = RepairClass::kAll;
    // Newer QEMU refuses an end before the last key; a later one than there is nobody asks for.
    if (luks.payload_sector > payload) f.effect = Effect::kNone;
    out->Add(std::move(f));
  }
  if (active > 0) return;
  Finding f = LuksFinding(image, Problem::kQcow2LuksNoSlot,
                          restorable ? "one still has its salt and iterations"
                                     : "and none has the salt and the iterations of one");
  f.repair = restorable ? RepairClass::kAll : RepairClass::kNone;
  out->Add(std::move(f));
}

}  // namespace

void JudgeLuks(const Image& image, Findings* out) {
  if (!image.encryption || image.header.crypt_method != kCryptLuks) return;
  const EncryptionExtension& e = *image.encryption;
  bool in_file =
      RangeFits(e.offset, e.length, AlignUp(image.file_size, image.geometry.cluster_size));
  if (!in_file || e.length < kLuksHeaderSize) {
    Finding f = LuksFinding(image, Problem::kQcow2LuksInFile,
                            fmt::format("{}, {} bytes", Hex(e.offset), e.length));
    // Readers go by the header's own fields; a length too long keeps none from it.
    if (image.luks && e.length >= kLuksHeaderSize) f.effect = Effect::kNone;
    out->Add(std::move(f));
  }
  if (!image.luks) return;
  const LuksHeader& luks = *image.luks;
  if (!luks.magic_ok || luks.version != 1 || !luks.strings_terminated || !luks.cipher_known()) {
    out->Add(LuksFinding(image, Problem::kQcow2LuksHeader,
                         !luks.magic_ok
                             ? "wrong magic"
                             : fmt::format("version {}, cipher {}-{}", luks.version,
                                           Printable(luks.cipher), Printable(luks.mode))));
    return;
  }
  if (in_file && luks.payload_sector * kCompressedSector > AlignUp(e.length, kCompressedSector)) {
    Finding f = LuksFinding(
        image, Problem::kQcow2LuksInFile,
        fmt::format("{} bytes, keys need {}", e.length, luks.payload_sector * kCompressedSector));
    const bool length_is_right = PayloadSector(luks, e.length) != luks.payload_sector;
    if (length_is_right) f.repair = RepairClass::kAll;
    // Where the keys end, no reader of qcow2 asks.
    if (length_is_right || KeysReachable(luks, e.length)) f.effect = Effect::kNone;
    out->Add(std::move(f));
  }
  JudgeSlots(image, luks, out);
}

}  // namespace imgfsck::qcow2
