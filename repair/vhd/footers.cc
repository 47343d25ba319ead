// SPDX-License-Identifier: Apache-2.0
// What the footers say: restores a damaged one from its copy, settles which of two is right, mends
// single fields. Moves nothing; where a footer has to be put is place.cc's.
#include "formats/vhd/footers.h"

#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/geometry.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

// Of two sound footers that differ in what matters: the one that can be right; the newer one; of
// equal age the one whose size the block table was made for; else the larger.
const Footer& Newer(const Image& image) {
  const Footer &trailing = image.trailing.footer, &leading = image.leading.footer;
  if (trailing.data_offset != leading.data_offset) {
    if (leading.data_offset == image.header_offset) return leading;
    if (trailing.data_offset == image.header_offset) return trailing;
  }
  if (trailing.TypeKnown() != leading.TypeKnown()) {
    return trailing.TypeKnown() ? trailing : leading;
  }
  if (trailing.timestamp != leading.timestamp) {
    return trailing.timestamp > leading.timestamp ? trailing : leading;
  }
  if (image.block_size != 0) {
    auto off = [&](const Footer& f) {
      uint64_t needed = DivRoundUp(f.current_size, image.block_size);
      return needed > image.bat_entries ? needed - image.bat_entries : image.bat_entries - needed;
    };
    if (off(trailing) != off(leading)) return off(trailing) < off(leading) ? trailing : leading;
  }
  return leading.current_size > trailing.current_size ? leading : trailing;
}

// An id for a disk without one: from what it holds first, so that a repair is repeatable.
UniqueId IdFromContent(Editor* editor) {
  ByteVector seed(4 * kSectorSize);
  uint64_t from = editor->image().sparse() ? kFooterSize : 0;
  if (!ReadPadded(editor->overlay(), from, seed)) seed.assign(1, 0);
  return MakeUpFooter(DiskType::kNone, 0, 0, seed).unique_id;
}

void SetType(const Image& image, Footer* f) {
  switch (image.kind) {
    case Kind::kFixed:
      f->disk_type = static_cast<uint32_t>(DiskType::kFixed);
      break;
    case Kind::kDynamic:
      f->disk_type = static_cast<uint32_t>(DiskType::kDynamic);
      break;
    case Kind::kDifferencing:
      f->disk_type = static_cast<uint32_t>(DiskType::kDifferencing);
      break;
  }
  f->data_offset = image.sparse() ? image.header_offset : kNoOffset;
}

void MendIdentity(Editor* editor, Footer* f) {
  const Image& image = editor->image();
  if (editor->Asked(Problem::kVhdFooterVersion)) f->version = kVersion1;
  if (editor->Asked(Problem::kVhdFooterFeatures)) {
    f->features |= kFeatureReserved;
    if (editor->AskedByName(Problem::kVhdFooterFeatures)) f->features &= 3;
  }
  if (editor->Asked(Problem::kVhdTemporary)) f->features &= ~kFeatureTemporary;
  if (editor->AskedAny({Problem::kVhdTypeInvalid, Problem::kVhdTypePlacement})) SetType(image, f);
  if (editor->Asked(Problem::kVhdFixedDataOffset)) f->data_offset = kNoOffset;
  if (editor->Asked(Problem::kVhdDynHeaderOffset)) f->data_offset = image.header_offset;
  if (editor->Asked(Problem::kVhdFooterReserved)) {
    std::fill(f->raw.begin() + footer_at::kReserved, f->raw.end(), uint8_t{0});
    f->hidden = f->hidden == 1 ? 1 : 0;
  }
  if (editor->Asked(Problem::kVhdUuidNull)) f->unique_id = IdFromContent(editor);
  if (editor->Asked(Problem::kVhdSavedState)) f->saved_state = 0;
}

void MendSize(Editor* editor, Footer* f) {
  if (editor->Asked(Problem::kVhdSizeZero)) f->current_size = ChsBytes(*f);
  if (editor->Asked(Problem::kVhdSizeUnaligned)) {
    f->current_size = AlignDown(f->current_size, kSectorSize);
  }
  if (editor->Asked(Problem::kVhdOriginalSize)) f->original_size = f->current_size;
  if (editor->Asked(Problem::kVhdGeometryMismatch)) {
    f->geometry = GeometryFor(f->current_size / kSectorSize);
  }
  // The largest geometry says to everybody: go by the size.
  if (editor->Asked(Problem::kVhdSizePolicyAmbiguous)) f->geometry = kSaturatedGeometry;
}

constexpr std::initializer_list<Problem> kFootersMended = {
    Problem::kVhdFooterKilled,       Problem::kVhdFooterPoisoned,
    Problem::kVhdFooterMissing,      Problem::kVhdFooterChecksum,
    Problem::kVhdFooterChecksumZero, Problem::kVhdFooterCopyMissing,
    Problem::kVhdFooterCopyChecksum, Problem::kVhdFooterCopyMismatch,
    Problem::kVhdFooterVersion,      Problem::kVhdFooterFeatures,
    Problem::kVhdTemporary,          Problem::kVhdTypeInvalid,
    Problem::kVhdTypePlacement,      Problem::kVhdFixedDataOffset,
    Problem::kVhdDynHeaderOffset,    Problem::kVhdFooterReserved,
    Problem::kVhdUuidNull,           Problem::kVhdSavedState,
    Problem::kVhdSizeZero,           Problem::kVhdSizeUnaligned,
    Problem::kVhdOriginalSize,       Problem::kVhdGeometryMismatch,
    Problem::kVhdSizePolicyAmbiguous};

bool FootersWanted(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, kFootersMended);
}

// Writing the footers also settles what only -r all may settle: then all of it has to wait.
std::string WhyNot(const Editor& editor, const CheckReport& report) {
  const Image& image = editor.image();
  if (image.trailing.state == SlotState::kPoisoned) {
    bool rest_sound = !image.sparse() || (StateOf(report).table_sound && image.leading.sound());
    if (!editor.Asked(Problem::kVhdFooterPoisoned) || !rest_sound) {
      return "a resize by vhd-util was interrupted: finish it with vhd-util and its journal first";
    }
  }
  bool may_settle = editor.AskedAny({Problem::kVhdFooterChecksum, Problem::kVhdFooterChecksumZero,
                                     Problem::kVhdFooterMissing, Problem::kVhdFooterKilled,
                                     Problem::kVhdFooterCopyMissing,
                                     Problem::kVhdFooterCopyChecksum, Problem::kVhdFooterPoisoned});
  if (!editor.FooterTrusted() && !may_settle) {
    return "no footer is sound; -r all makes do with what is left";
  }
  const Finding* grave = nullptr;
  for (const Finding& f : report.findings.kept()) {
    bool mismatch = f.problem == Problem::kVhdFooterCopyMismatch;
    if (mismatch && f.severity_or_default() == Severity::kCorruption) grave = &f;
  }
  if (grave != nullptr && !Allowed(*grave, editor.options())) {
    return "the two footers disagree about the disk; -r all takes the newer one";
  }
  return {};
}

Result<PassOutcome> RunFooters(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  PassOutcome outcome;
  if (std::string why = WhyNot(editor, context.report); !why.empty()) {
    outcome.notes.push_back(std::move(why));
    return outcome;
  }
  const uint64_t old_size = image.VirtualSize();
  Footer footer = image.footer;
  if (editor.Asked(Problem::kVhdFooterCopyMismatch)) {
    bool grave = false;
    for (const Finding* f : editor.FindingsOf(Problem::kVhdFooterCopyMismatch)) {
      grave = grave || f->severity_or_default() == Severity::kCorruption;
    }
    footer = grave ? Newer(image) : image.trailing.footer;
  }
  MendIdentity(&editor, &footer);
  MendSize(&editor, &footer);
  Seal(&footer);
  uint64_t new_size = VirtualSize(footer, image.policy);
  if (new_size < old_size) {
    outcome.changed.push_back(OfDisk(MakeGuestRange(new_size, old_size - new_size)));
    outcome.lost = outcome.changed;
  }
  IMG_ASSIGN_OR_RETURN(bool changed, editor.WriteFooters(footer));
  if (!changed) return PassOutcome{};
  outcome.changes = 1;
  if (image.footer_from.origin > Origin::kCopy) {
    outcome.particulars.push_back("footer: " + image.footer_from.evidence);
  }
  return outcome;
}

}  // namespace

const Pass kFooterPass{"footers", 10, "make both footers sound, and the same", FootersWanted,
                       RunFooters};

}  // namespace imgfsck::vhd
