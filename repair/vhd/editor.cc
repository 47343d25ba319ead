// SPDX-License-Identifier: Apache-2.0
#include "repair/vhd/editor.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/vhd/bat.h"
#include "formats/vhd/encode.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kPiece = kMiB;
constexpr uint64_t kWorthAsking = 64 * kKiB;  // to ask for holes takes longer than to read less

// Behind all blocks and metadata; where the footer stands, when nothing reaches over it and nothing
// follows it; else behind the last byte of the file.
uint64_t FreshSpace(const CheckState& state) {
  const Image& image = *state.image;
  bool footer_is_last = image.trailing_at_end && IsAligned(image.trailing.offset, kSectorSize) &&
                        state.end_of_data <= image.trailing.offset;
  return footer_is_last ? image.trailing.offset : AlignUp(image.file_size, kSectorSize);
}

}  // namespace

Editor::Editor(const PassContext& context)
    : overlay_(context.image),
      report_(context.report),
      state_(StateOf(context.report)),
      image_(*state_.image),
      first_(context.first != nullptr ? *StateOf(*context.first).image : image_),
      options_(context.options),
      end_(FreshSpace(state_)) {}

bool Editor::Asked(Problem problem) const { return WantedAny(report_, options_, {problem}); }

bool Editor::AskedAny(std::initializer_list<Problem> problems) const {
  return WantedAny(report_, options_, problems);
}

std::vector<const Finding*> Editor::FindingsOf(Problem problem) const {
  std::vector<const Finding*> findings;
  for (const Finding& finding : report_.findings.kept()) {
    if (finding.problem == problem && Allowed(finding, options_)) findings.push_back(&finding);
  }
  return findings;
}

void Editor::Settle(Problem problem, PassOutcome* outcome) const {
  for (const Finding* finding : FindingsOf(problem)) {
    if (finding->guest) outcome->settled.push_back(OfDisk(*finding->guest));
  }
}

Status Editor::Fill(uint64_t offset, uint64_t length, uint8_t byte) {
  const ByteVector bytes(std::min(length, kPiece), byte);
  while (length > 0) {
    uint64_t piece = std::min<uint64_t>(length, bytes.size());
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(Write(offset, Bytes(bytes).first(piece)));
    offset += piece;
    length -= piece;
  }
  return Ok();
}

Status Editor::WriteEntry(uint64_t index, uint32_t sector) {
  uint8_t bytes[4];
  StoreBe(bytes, sector);
  return Write(image_.bat_offset + index * 4, bytes);
}

Status Editor::WriteHeader(DynHeader header) { return Write(image_.header_offset, Seal(&header)); }

bool Editor::TrailingInPlace() const {
  const FooterSlot& slot = image_.trailing;
  if (slot.state == SlotState::kAbsent || state_.end_of_data > slot.offset) return false;
  return slot.believable() || IsAligned(slot.offset, kSectorSize);
}

Result<bool> Editor::WriteFooters(Footer footer) {
  Bytes raw = Seal(&footer);
  bool changed = false;
  auto write = [&](uint64_t offset, Bytes bytes) -> Status {
    ByteVector old(bytes.size());
    if (ReadPadded(overlay_, offset, old) && std::ranges::equal(old, bytes)) return Ok();
    changed = true;
    return Write(offset, bytes);
  };
  if (image_.sparse()) IMG_RETURN_IF_ERROR(write(0, raw));
  if (TrailingInPlace()) {
    IMG_RETURN_IF_ERROR(write(image_.trailing.offset, raw.first(image_.trailing.length)));
  }
  return changed;
}

bool Editor::FooterTrusted() const {
  return image_.footer_from.origin <= Origin::kCopy && image_.footer_from.confidence >= 0.95;
}

Status Editor::EndFileWith(Footer footer, uint64_t offset) {
  IMG_RETURN_IF_ERROR(Write(offset, Seal(&footer)));
  end_ = offset;
  return overlay_.SetSize(offset + kFooterSize);
}

Result<uint64_t> Editor::Append(uint64_t length) {
  if (!FooterTrusted()) {
    return Error{ErrorCode::kConflict, "no footer is sound enough to be moved", std::nullopt};
  }
  const uint64_t at = end_, new_end = SaturatingAdd(at, length);
  if (new_end / kSectorSize >= kUnallocated) {
    return Error{ErrorCode::kTooLarge, "the file would grow beyond the format's limit", {}};
  }
  // The old footer goes, and whatever stood behind it is there no more: all of it reads as zeros.
  uint64_t old_size = overlay_.Size();
  if (at < old_size) IMG_RETURN_IF_ERROR(overlay_.SetSize(at));
  IMG_RETURN_IF_ERROR(EndFileWith(image_.footer, new_end));
  return at;
}

// From the bytes as they were before this pass: what it has written since may lie there.
Status Editor::Copy(uint64_t from, uint64_t to, uint64_t length) {
  return CopyFrom(*image_.source, from, to, length);
}

Status Editor::CopyBlock(uint64_t index, uint64_t from, uint64_t to) {
  auto entry = BatEntryAt(*first_.source, first_, index);
  bool same = first_.sparse() && first_.block_size == image_.block_size && entry &&
              uint64_t{*entry} * kSectorSize == from;
  return CopyFrom(same ? *first_.source : *image_.source, from, to, image_.BlockLength());
}

Status Editor::CopyFrom(const ByteSource& source, uint64_t from, uint64_t to, uint64_t length) {
  ByteVector buffer;
  while (length > 0) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t piece = std::min(length, kPiece);
    if (from < source.Size()) {
      bool hole = false;
      if (piece >= kWorthAsking) {
        auto extent = source.ExtentAt(from);
        hole = extent && extent->hole && extent->length >= piece;
      }
      if (!hole) {
        buffer.resize(piece);
        IMG_RETURN_IF_ERROR(ReadPadded(source, from, buffer));
        if (!AllZero(buffer)) IMG_RETURN_IF_ERROR(Write(to, buffer));
      }
    }
    from += piece;
    to += piece;
    length -= piece;
  }
  return Ok();
}

}  // namespace imgfsck::vhd
