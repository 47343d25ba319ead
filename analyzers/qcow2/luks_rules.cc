// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/luks_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/units.h"

namespace imgfsck::qcow2 {
namespace {

bool IsEmpty(const LuksSlot& slot) {
  return slot.iterations == 0 && std::ranges::all_of(slot.salt, [](uint8_t b) { return b == 0; });
}
// Salt and iterations are what an active slot has and a free one has not.
bool IsFilled(const LuksSlot& slot) {
  return slot.iterations != 0 && std::ranges::any_of(slot.salt, [](uint8_t b) { return b != 0; });
}
bool IsActive(const LuksSlot& slot) { return slot.state == kLuksSlotActive; }

uint64_t RuleSector(const LuksHeader& luks, size_t slot) {
  return kLuksFirstKeySector + slot * luks.SlotSectors();
}
bool FollowsRule(const LuksHeader& luks, size_t slot) {
  return luks.slots[slot].key_sector == RuleSector(luks, slot);
}

// Writers wipe salt and iterations of a slot that they switch off. Where no slot is active, one
// that still has them was switched off by damage.
void JudgeSwitchedOff(const LuksHeader& luks, size_t index, SlotVerdict* verdict) {
  if (!IsFilled(luks.slots[index]) || std::ranges::any_of(luks.slots, IsActive)) return;
  verdict->state = kLuksSlotActive;
  verdict->state_repair = RepairClass::kAll;
}

void JudgeState(const LuksHeader& luks, size_t index, SlotVerdict* verdict) {
  const LuksSlot& slot = luks.slots[index];
  if (IsActive(slot) && slot.iterations != 0) return;
  if (slot.state == kLuksSlotInactive) {
    JudgeSwitchedOff(luks, index, verdict);
    return;
  }
  verdict->bad_state = IsActive(slot) ? "active without iterations" : "state " + Hex(slot.state);
  if (IsEmpty(slot)) {
    verdict->state = kLuksSlotInactive;
    verdict->state_repair = RepairClass::kSafe;
  } else if (IsFilled(slot)) {
    verdict->state = kLuksSlotActive;
    verdict->state_repair = RepairClass::kAll;
  } else {
    // Its passphrase is lost; the others open the image once it is out of the way.
    bool another = false;
    for (size_t i = 0; i < luks.slots.size(); ++i) {
      another |= i != index && IsActive(luks.slots[i]) && IsFilled(luks.slots[i]);
    }
    if (another) {
      verdict->state = kLuksSlotInactive;
      verdict->state_repair = RepairClass::kAll;
    } else {
      verdict->bad_state += "; what is missing stands nowhere else, and no other slot is in use";
    }
  }
}

void JudgeLayout(const LuksHeader& luks, size_t index, uint64_t payload, SlotVerdict* verdict) {
  const LuksSlot& slot = luks.slots[index];
  const uint64_t sectors = luks.SlotSectors(), end = slot.key_sector + sectors;
  size_t regular = 0;
  bool overlaps = false;
  for (size_t i = 0; i < luks.slots.size(); ++i) {
    regular += FollowsRule(luks, i);
    if (i == index) continue;
    const uint64_t other = luks.slots[i].key_sector;
    // Of two that overlap the one out of its place is wrong, else the later.
    const bool ours =
        FollowsRule(luks, index) == FollowsRule(luks, i) ? i < index : FollowsRule(luks, i);
    overlaps |= ours && slot.key_sector < other + sectors && other < end;
  }
  verdict->bad_layout = slot.stripes != kLuksStripes || slot.key_sector < kLuksFirstKeySector ||
                        overlaps || end > payload;
  if (!verdict->bad_layout) return;
  const uint64_t rule = RuleSector(luks, index);
  verdict->key_sector = static_cast<uint32_t>(rule);
  // The rule must hold for most slots, and its place must exist.
  if (regular * 2 < luks.slots.size() || rule + sectors > payload) return;
  verdict->layout_repair = slot.state == kLuksSlotInactive ? RepairClass::kSafe : RepairClass::kAll;
}

}  // namespace

SlotVerdict JudgeSlot(const LuksHeader& luks, size_t slot, uint64_t payload) {
  SlotVerdict verdict;
  JudgeState(luks, slot, &verdict);
  JudgeLayout(luks, slot, payload, &verdict);
  return verdict;
}

uint64_t PayloadSector(const LuksHeader& luks, uint64_t length) {
  const uint64_t keys_end = RuleSector(luks, luks.slots.size());
  const uint64_t recorded = length / kSector;
  if (luks.payload_sector >= keys_end && luks.payload_sector <= recorded) {
    return luks.payload_sector;
  }
  for (size_t i = 0; i < luks.slots.size(); ++i) {
    if (!FollowsRule(luks, i)) return luks.payload_sector;
  }
  return length % kSector == 0 && recorded == keys_end ? recorded : luks.payload_sector;
}

}  // namespace imgfsck::qcow2
