// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/header.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/checked.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/infer.h"

namespace imgfsck::vhd {
namespace {

SlotState JudgeHeader(const DynHeader& header) {
  if (header.HasCookie()) {
    return header.ChecksumValid() ? SlotState::kSound : SlotState::kBadChecksum;
  }
  DynHeader restored = WithCookie(header);
  bool sane = BlockSizeSane(restored.block_size) && restored.version == kVersion1;
  if (sane && restored.ChecksumValid()) return SlotState::kNoCookie;
  int same = 0;
  for (size_t i = 0; i < kHeaderCookie.size(); ++i) {
    same += header.raw[i] == static_cast<uint8_t>(kHeaderCookie[i]);
  }
  constexpr int kEnough = 5;
  return same >= kEnough ? SlotState::kRemains : SlotState::kAbsent;
}

// Takes what stands at `offset` when it is better than what was found so far.
void Consider(Image* image, uint64_t offset) {
  if (!IsAligned(offset, kSectorSize) || !RangeFits(offset, kHeaderSize, image->file_size) ||
      image->header_state == SlotState::kSound) {
    return;
  }
  std::array<uint8_t, kHeaderSize> bytes;
  ReadTolerant(*image->source, offset, bytes, &image->unreadable);
  DynHeader header = ParseHeader(bytes);
  SlotState state = JudgeHeader(header);
  if (state <= image->header_state) return;
  image->header_state = state;
  image->header_offset = offset;
  image->stored_header = header;
}

uint64_t EntriesFor(uint64_t size, uint64_t block_size) { return DivRoundUp(size, block_size); }

// Also where the size of the disk is not known.
bool EntriesFit(const DynHeader& h, uint64_t disk_size) {
  if (disk_size == 0 || h.block_size == 0) return true;
  uint64_t needed = EntriesFor(disk_size, h.block_size);
  return h.max_entries >= needed && h.max_entries <= needed + 1;
}

void InferFields(Image* image) {
  DynHeader& h = image->header;
  const uint64_t size = std::max(image->footer.current_size, image->VirtualSize());
  std::string said;
  double confidence = 1;
  auto note = [&](const Inferred& what) {
    if (!said.empty()) said += "; ";
    said += what.evidence;
    confidence = std::min(confidence, what.confidence);
  };
  // A field that contradicts the rest is only doubted when the checksum is wrong, too.
  const bool doubted =
      image->header_from.origin == Origin::kStored && image->header_state < SlotState::kSound;
  if (!TableOffsetSane(*image, h.table_offset) ||
      (doubted && !LooksLikeTable(*image, h.table_offset))) {
    Inferred table = InferTableOffset(*image);
    h.table_offset = table.value;
    note(table);
  }
  bool contradicted =
      doubted && (!EntriesFit(h, size) || !BlocksLieApart(*image, h.table_offset, h.block_size));
  if (contradicted || !BlockSizeSane(h.block_size)) {
    Inferred block = InferBlockSize(*image, h.table_offset);
    bool told = block.confidence > kSpacingTells && block.value != h.block_size;
    if (told || !BlockSizeSane(h.block_size)) {
      h.block_size = static_cast<uint32_t>(block.value);
      note(block);
    }
  }
  uint64_t needed = EntriesFor(size, h.block_size);
  if ((h.max_entries == 0 || (doubted && !EntriesFit(h, size))) && needed <= UINT32_MAX) {
    h.max_entries = static_cast<uint32_t>(needed);
    note({needed, 0.9, "as many entries as the size of the disk needs"});
  }
  h.version = kVersion1;
  h.next_offset = kNoOffset;
  if (!said.empty()) image->header_from = {Origin::kInferred, confidence, said};
}

}  // namespace

bool BlockSizeSane(uint64_t block_size) {
  return std::has_single_bit(block_size) && block_size >= kSectorSize && block_size <= UINT32_MAX;
}

DynHeader WithCookie(const DynHeader& header) {
  auto raw = header.raw;
  std::ranges::copy(AsBytes(kHeaderCookie), raw.begin());
  return ParseHeader(raw);
}

bool TableOffsetSane(const Image& image, uint64_t offset) {
  return IsAligned(offset, kSectorSize) && offset >= image.header_offset + kHeaderSize &&
         offset < image.file_size;
}

bool FindHeader(Image* image, bool search) {
  Consider(image, image->footer.data_offset);
  for (const FooterSlot* slot : {&image->leading, &image->trailing}) {
    if (slot->believable()) Consider(image, slot->footer.data_offset);
  }
  Consider(image, kFooterSize);
  if (search && image->header_state == SlotState::kAbsent) {
    for (uint64_t at = 0; at < kMiB && at < image->file_size; at += kSectorSize) {
      Consider(image, at);
      if (image->header_state >= SlotState::kBadChecksum) break;
    }
  }
  return image->header_state != SlotState::kAbsent;
}

void ChooseHeader(Image* image) {
  image->header = image->stored_header;
  image->header_from = {};
  if (image->header_state == SlotState::kSound) {
    if (image->header_offset != image->footer.data_offset) {
      image->header_from = {Origin::kElsewhere, 0.95, "a sound header stands there"};
    }
  } else if (image->header_state != SlotState::kAbsent) {
    if (auto corrected = CorrectHeader(*image)) {
      image->header = *corrected;
      image->header_from = {Origin::kCorrected, 0.95, "with this the stored checksum is right"};
    } else {
      image->header_from = {Origin::kStored, 0.7, "its fields, though the checksum is wrong"};
    }
  } else {
    uint64_t offset = image->footer.data_offset;
    bool usable = IsAligned(offset, kSectorSize) && offset >= kFooterSize &&
                  RangeFits(offset, kHeaderSize, image->file_size);
    image->header_offset = usable ? offset : kFooterSize;
    image->header = {};
    image->header_from = {Origin::kInferred, 0.5, ""};
  }
  InferFields(image);
}

}  // namespace imgfsck::vhd
