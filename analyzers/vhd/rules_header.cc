// SPDX-License-Identifier: Apache-2.0
// Rows 32 to 43: the dynamic header, and where it says the block table is.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/header.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

struct Adder {
  const Image& image;
  Findings* out;
  void operator()(Problem problem, uint64_t at, uint64_t length, std::string detail = {}) const {
    out->Add(Make(problem, at, length, std::move(detail)));
  }
  Finding Make(Problem problem, uint64_t at, uint64_t length, std::string detail) const {
    return At(problem, "header", image.header_offset + at, length, std::move(detail));
  }
};

void JudgeOffset(const Image& image, Findings* out) {
  uint64_t offset = image.footer.data_offset;
  bool usable = IsAligned(offset, kSectorSize) && offset >= kFooterSize &&
                RangeFits(offset, kHeaderSize, image.DataEnd());
  bool elsewhere = image.header_state != SlotState::kAbsent && image.header_offset != offset;
  if (usable && !elsewhere) return;
  Finding f = At(Problem::kVhdDynHeaderOffset, "footer", FooterAt(image) + footer_at::kDataOffset,
                 8, Hex(offset));
  if (elsewhere) f.evidence = fmt::format("a header stands at {}", Hex(image.header_offset));
  bool copy_helps =
      image.leading.sound() && image.leading.footer.data_offset == image.header_offset;
  if (!copy_helps) f.repair = RepairClass::kAll;
  out->Add(std::move(f));
}

void JudgeSignature(const Image& image, const Adder& add) {
  const DynHeader& h = image.stored_header;
  if (image.header_state < SlotState::kBadChecksum) {
    Finding f = add.Make(Problem::kVhdDynHeaderCookie, header_at::kCookie, 8, "");
    f.evidence = image.header_from.evidence;
    f.confidence = image.header_from.confidence;
    // With the signature back the stored checksum is right: nothing is guessed.
    if (image.header_state == SlotState::kNoCookie) f.repair = RepairClass::kSafe;
    add.out->Add(std::move(f));
  } else if (image.header_state == SlotState::kBadChecksum) {
    Finding f = add.Make(Problem::kVhdDynHeaderChecksum, header_at::kChecksum, 4,
                         fmt::format("stored {:#010x}, computed {:#010x}", h.checksum,
                                     Checksum(h.raw, header_at::kChecksum)));
    f.evidence = image.header_from.evidence;
    f.confidence = image.header_from.confidence;
    add.out->Add(std::move(f));
  }
}

void JudgeFields(const Image& image, const Adder& add) {
  const DynHeader& h = image.stored_header;
  if (h.version != kVersion1) {
    add(Problem::kVhdDynHeaderVersion, header_at::kVersion, 4, Hex(h.version));
  }
  if (h.next_offset != kNoOffset) {
    add(Problem::kVhdDynHeaderNext, header_at::kNextOffset, 8, Hex(h.next_offset));
  }
  if (!AllZero(Bytes(h.raw).subspan(header_at::kReserved1, 4)) ||
      !AllZero(Bytes(h.raw).subspan(header_at::kReserved2))) {
    add(Problem::kVhdDynHeaderReserved, header_at::kReserved2, kHeaderSize - header_at::kReserved2);
  }
  if (!BlockSizeSane(h.block_size) || h.block_size < kMinBlockSize) {
    Finding f = add.Make(Problem::kVhdDynBlockSize, header_at::kBlockSize, 4,
                         fmt::format("{} bytes", h.block_size));
    f.evidence = image.header_from.evidence;
    f.confidence = image.header_from.confidence;
    if (BlockSizeSane(h.block_size)) f.repair = RepairClass::kNone;
    add.out->Add(std::move(f));
  } else if (h.block_size != kDefaultBlockSize && h.block_size != kDefaultBlockSize / 4) {
    Finding f =
        add.Make(Problem::kVhdDynBlockSize, header_at::kBlockSize, 4, HumanSize(h.block_size));
    f.severity = Severity::kWarning;
    f.repair = RepairClass::kNone;
    f.effect = Effect::kNone;
    add.out->Add(std::move(f));
  }
}

void JudgeEntries(const Image& image, const Adder& add) {
  uint64_t needed = image.BlocksNeeded(), has = image.stored_header.max_entries;
  std::string text = fmt::format("{} entries, {} needed", has, needed);
  if (has < needed) {
    Finding f = add.Make(Problem::kVhdDynMaxEntriesSmall, header_at::kMaxEntries, 4, text);
    uint64_t reached = has * image.block_size;
    if (reached < image.VirtualSize()) {
      f.guest = MakeGuestRange(reached, image.VirtualSize() - reached);
      f.layer = kActiveLayer;
    } else {
      f.severity = Severity::kWarning;  // whoever goes by the geometry never gets there
      f.repair = RepairClass::kNone;
    }
    if (image.VirtualSize() / kSectorSize > kMaxSectors) f.repair = RepairClass::kNone;
    add.out->Add(std::move(f));
  } else if (has > needed + 1) {
    add(Problem::kVhdDynMaxEntriesExcess, header_at::kMaxEntries, 4, text);
  }
}

void JudgeParentFields(const Image& image, const Adder& add) {
  const DynHeader& h = image.stored_header;
  if (image.kind == Kind::kDifferencing) return;
  bool any = !IsNull(h.parent_id) || h.parent_timestamp != 0 || !AllZero(h.ParentName()) ||
             std::ranges::any_of(h.locators, [](const Locator& l) { return l.code != 0; });
  if (!any) return;
  add(Problem::kVhdDynParentFieldsSet, header_at::kParentId,
      header_at::kReserved2 - header_at::kParentId,
      DecodeUtf16(h.ParentName(), ByteOrder::kBig).utf8);
}

void JudgeTable(const Image& image, const Adder& add) {
  uint64_t offset = image.stored_header.table_offset;
  bool usable = IsAligned(offset, kSectorSize) && offset >= image.header_offset + kHeaderSize &&
                offset < image.DataEnd();
  if (!usable) {
    Finding f = add.Make(Problem::kVhdBatOffset, header_at::kTableOffset, 8, Hex(offset));
    f.evidence = image.header_from.evidence;
    f.confidence = image.header_from.confidence;
    add.out->Add(std::move(f));
  } else if (!RangeFits(offset, image.bat_entries * 4, image.DataEnd())) {
    uint64_t in_file = (image.DataEnd() - offset) / 4;
    Finding f = At(Problem::kVhdBatTruncated, "bat", offset, image.DataEnd() - offset,
                   fmt::format("{} of {} entries are in the file", in_file, image.bat_entries));
    uint64_t from = SaturatingMul(in_file, image.block_size);
    if (from < image.VirtualSize()) {
      f.guest = MakeGuestRange(from, image.VirtualSize() - from);
      f.layer = kActiveLayer;
    }
    add.out->Add(std::move(f));
  }
}

// Row 38: no two structures share a byte.
void JudgeOverlaps(const Image& image, Findings* out) {
  for (size_t i = 0; i < image.regions.size(); ++i) {
    for (size_t k = i + 1; k < image.regions.size(); ++k) {
      const MetaRegion &a = image.regions[i], &b = image.regions[k];
      if (b.offset >= a.end() || a.offset >= b.end()) continue;
      uint64_t from = std::max(a.offset, b.offset), to = std::min(a.end(), b.end());
      Finding f = At(Problem::kVhdDynMetadataOverlap, b.name, from, to - from,
                     fmt::format("{} and {}", a.name, b.name));
      bool movable = a.kind == "locator" || b.kind == "locator" || a.name == "batmap-map" ||
                     b.name == "batmap-map";
      if (!movable) f.repair = RepairClass::kAll;
      f.also.push_back({"", std::nullopt, a.name});
      out->Add(std::move(f));
    }
  }
}

}  // namespace

void JudgeHeader(const Image& image, Findings* out) {
  Adder add{image, out};
  JudgeOffset(image, out);
  JudgeSignature(image, add);
  if (image.header_state != SlotState::kAbsent) {
    JudgeFields(image, add);
    JudgeEntries(image, add);
    JudgeParentFields(image, add);
    JudgeTable(image, add);
  }
  JudgeOverlaps(image, out);
}

}  // namespace imgfsck::vhd
