// SPDX-License-Identifier: Apache-2.0
// Puts the trailing footer where it belongs: behind the last block, or behind the data of a fixed
// disk. Cuts off only what cannot be data, and only when the block table is sound.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/geometry.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kPlaceMended = {
    Problem::kVhdFooterMissing,      Problem::kVhdFooterKilled, Problem::kVhdFooterNotAtEof,
    Problem::kVhdFooter511,          Problem::kVhdFixedSize,    Problem::kVhdFileLengthUnaligned,
    Problem::kVhdGeometryExceedsSize};

bool PlaceWanted(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, kPlaceMended);
}

class PlacePass {
 public:
  explicit PlacePass(const PassContext& context) : editor_(context), image_(editor_.image()) {}

  Result<PassOutcome> Run() {
    IMG_RETURN_IF_ERROR(image_.sparse() ? Sparse() : Fixed());
    if (outcome_.changes > 0 && editor_.Asked(Problem::kVhdGeometryExceedsSize)) {
      // No guest could keep anything there; now all readers agree about it.
      editor_.Settle(Problem::kVhdGeometryExceedsSize, &outcome_);
    }
    if (outcome_.changes == 0 && editor_.Asked(Problem::kVhdFooter511)) {
      ++outcome_.changes;
      IMG_RETURN_IF_ERROR(editor_.overlay().SetSize(image_.file_size + 1));
    }
    return outcome_;
  }

 private:
  Status End(const Footer& footer, uint64_t offset) {
    ++outcome_.changes;
    return editor_.EndFileWith(footer, offset);
  }

  Status Rewrite(const Footer& footer) {
    IMG_ASSIGN_OR_RETURN(bool changed, editor_.WriteFooters(footer));
    outcome_.changes += changed;
    return Ok();
  }

  // There is none, or what is blanked out is no place for one.
  bool Missing() const {
    const FooterSlot& slot = image_.trailing;
    return slot.state == SlotState::kAbsent ||
           (!slot.believable() && !IsAligned(slot.offset, kSectorSize));
  }
  bool AskedForMissing() const {
    return Missing() && editor_.AskedAny({Problem::kVhdFooterMissing, Problem::kVhdFooterKilled});
  }

  bool HoldsNothing(uint64_t from, uint64_t to) const {
    return from >= to ||
           ClassifyContent(image_, MakeHostRange(from, to - from)) <= Content::kSuperseded;
  }

  Status Sparse() {
    if (editor_.Asked(Problem::kVhdGeometryExceedsSize)) return SparseGeometry();
    if (!editor_.FooterTrusted() || !editor_.state().table_sound) {
      outcome_.notes.push_back(
          "the footer is put to the end of the file once the block table is sound");
      return Ok();
    }
    const uint64_t end = AlignUp(editor_.state().end_of_data, kSectorSize);
    if (AskedForMissing()) {
      bool cut = HoldsNothing(end, std::min(image_.file_size, image_.DataEnd()));
      return End(image_.footer, cut ? end : AlignUp(image_.file_size, kSectorSize));
    }
    uint64_t behind = image_.trailing.offset + image_.trailing.length;
    if (editor_.Asked(Problem::kVhdFooterNotAtEof)) {
      if (editor_.AskedByName(Problem::kVhdFooterNotAtEof)) return End(image_.footer, end);
      if (HoldsNothing(behind, image_.file_size)) {
        return End(image_.footer, image_.trailing.offset);
      }
      outcome_.notes.push_back("what follows the footer is kept: it may be a lost block");
    }
    if (editor_.Asked(Problem::kVhdFileLengthUnaligned)) return End(image_.footer, end);
    return Ok();
  }

  // A geometry that is too large by more than rounding explains is damage: the size stands.
  Status ShrinkGeometry() {
    Footer footer = image_.footer;
    const uint64_t old_size = image_.VirtualSize();
    footer.geometry = GeometryFor(footer.current_size / kSectorSize);
    const uint64_t new_size = VirtualSize(footer, image_.policy);
    if (new_size < old_size) {
      outcome_.changed.push_back(OfDisk(MakeGuestRange(new_size, old_size - new_size)));
    }
    return Rewrite(footer);
  }
  bool GeometryIsDamage() const {
    return ChsBytes(image_.footer) > image_.footer.current_size + kMostRoundingUp * kSectorSize;
  }

  // Readers that go by the size never see the geometry: there it is enough to recompute it.
  Status SparseGeometry() {
    if (GeometryIsDamage()) return ShrinkGeometry();
    Footer footer = image_.footer;
    uint64_t blocks = DivRoundUp(ChsBytes(footer), image_.block_size);
    if (CreatorOf(footer.creator_app).qemu_by_chs && blocks <= image_.bat_entries) {
      footer.current_size = footer.original_size = ChsBytes(footer);
    } else if (!CreatorOf(footer.creator_app).qemu_by_chs) {
      footer.geometry = GeometryFor(footer.current_size / kSectorSize);
    } else {
      outcome_.notes.push_back("the block table is too short for the geometry of the disk");
      return Ok();
    }
    return Rewrite(footer);
  }

  Status Fixed() {
    Footer footer = image_.footer;
    if (Missing()) {
      if (!AskedForMissing()) return Ok();
      return EndMadeUp(footer);
    }
    if (!editor_.FooterTrusted()) {
      outcome_.notes.push_back("the footer is moved once it is sound");
      return Ok();
    }
    if (editor_.Asked(Problem::kVhdGeometryExceedsSize)) {
      if (GeometryIsDamage()) return ShrinkGeometry();
      // What lies under the old footer is guest data to those who go by the geometry: it stays.
      footer.current_size = footer.original_size = ChsBytes(footer);
      return End(footer, footer.current_size);
    }
    if (editor_.Asked(Problem::kVhdFixedSize)) return FixedSize(footer);
    if (editor_.Asked(Problem::kVhdFooterNotAtEof) &&
        image_.trailing.offset == footer.current_size) {
      return End(footer, image_.trailing.offset);
    }
    return Ok();
  }

  // What the file lacks of the disk, and of its last sector, is lost.
  Status EndMadeUp(const Footer& footer) {
    uint64_t size = footer.current_size, kept = AlignDown(image_.DataEnd(), kSectorSize);
    if (kept < size) {
      outcome_.changed.push_back(OfDisk(MakeGuestRange(kept, size - kept)));
      outcome_.lost = outcome_.changed;
    }
    outcome_.particulars.push_back(fmt::format("footer made up, the disk has {} bytes: {}", size,
                                               image_.footer_from.evidence));
    return End(footer, size);
  }

  Status FixedSize(Footer footer) {
    const uint64_t payload = image_.trailing.offset, size = footer.current_size;
    const bool lacks_little = size > payload && size - payload < kDefaultBlockSize;
    // QEMU shows the footer's bytes to the guest where the disk reaches over it: they stay.
    if (lacks_little) return End(footer, size);
    if (size > payload) {
      outcome_.changed.push_back(OfDisk(MakeGuestRange(payload, size - payload)));
      outcome_.lost = outcome_.changed;
    }
    footer.current_size = AlignUp(payload, kSectorSize);
    if (!IsSaturated(footer.geometry)) {
      footer.geometry = GeometryFor(footer.current_size / kSectorSize);
    }
    if (footer.current_size != payload) return End(footer, footer.current_size);
    return Rewrite(footer);
  }

  Editor editor_;
  const Image& image_;
  PassOutcome outcome_;
};

Result<PassOutcome> RunPlace(const PassContext& context) { return PlacePass(context).Run(); }

}  // namespace

const Pass kPlacePass{"footer-place", 80, "put the footer to the end of the file", PlaceWanted,
                      RunPlace};

}  // namespace imgfsck::vhd
