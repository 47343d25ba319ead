// SPDX-License-Identifier: Apache-2.0
// Rows 134, 136 to 138: what a LUKS header's fields say together, and what of them can be mended.
#pragma once

#include <optional>
#include <string>

#include "formats/qcow2/luks.h"
#include "model/problem.h"

namespace imgfsck::qcow2 {

// Where the header has these fields.
inline constexpr uint64_t kLuksPayloadOffset = 104, kLuksSlotsOffset = 208, kLuksSlotSize = 48;

struct SlotVerdict {
  std::optional<uint32_t> state;  // what it must be, where the other fields show it
  std::string bad_state;          // what is wrong with it; empty: nothing
  RepairClass state_repair = RepairClass::kNone;
  bool bad_layout = false;
  uint32_t key_sector = 0;  // where the slot's key lies by the rule that all writers follow
  RepairClass layout_repair = RepairClass::kNone;
};
// `payload`: the sector where the keys end.
SlotVerdict JudgeSlot(const LuksHeader& luks, size_t slot, uint64_t payload);

// The sector where the keys end: the header's, unless it contradicts both the key slots and the
// length that the image's extension records, and these two agree.
uint64_t PayloadSector(const LuksHeader& luks, uint64_t length);

}  // namespace imgfsck::qcow2
