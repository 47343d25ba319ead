// SPDX-License-Identifier: Apache-2.0
// Rows 13 to 31: the fields of the footer that is gone by.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

// Fields that were worked out are right by construction; what stands in their place was judged.
bool FieldsAreStored(const Image& image) { return image.footer_from.origin <= Origin::kCopy; }

struct Adder {
  const Image& image;
  Findings* out;
  void operator()(Problem problem, uint64_t at, uint64_t length, std::string detail = {}) const {
    bool copy = image.footer_from.origin == Origin::kCopy;
    out->Add(At(problem, copy ? "footer-copy" : "footer", FooterAt(image) + at, length,
                std::move(detail)));
  }
};

void JudgeType(const Image& image, const Adder& add) {
  const Footer& f = image.footer;
  if (!f.TypeKnown()) {
    Finding finding = At(Problem::kVhdTypeInvalid, "footer", FooterAt(image) + footer_at::kDiskType,
                         4, fmt::format("{}", f.disk_type));
    bool other = (image.leading.sound() && image.leading.footer.disk_type != f.disk_type) ||
                 (image.trailing.sound() && image.trailing.footer.disk_type != f.disk_type);
    if (!other) finding.repair = RepairClass::kAll;
    finding.evidence = fmt::format("the structures are those of a {} disk", ToText(image.kind));
    add.out->Add(std::move(finding));
  } else if ((f.type() == DiskType::kFixed) != (image.kind == Kind::kFixed)) {
    add(Problem::kVhdTypePlacement, footer_at::kDiskType, 4,
        fmt::format("type {}, but the structures are those of a {} disk", f.disk_type,
                    ToText(image.kind)));
  }
}

void JudgeFixed(const Image& image, const Adder& add) {
  const Footer& f = image.footer;
  if (image.kind != Kind::kFixed) return;
  if (image.leading.state >= SlotState::kBadChecksum && image.trailing.believable()) {
    Finding finding = At(Problem::kVhdFixedSpoofedHeader, "data", 0, kSectorSize);
    finding.guest = MakeGuestRange(0, kSectorSize);
    finding.layer = kActiveLayer;
    finding.evidence = "the footer at the end of the file is that of a fixed disk";
    add.out->Add(std::move(finding));
  }
  if (f.data_offset < kNoOffsetOfSpec) {
    add(Problem::kVhdFixedDataOffset, footer_at::kDataOffset, 8, Hex(f.data_offset));
  }
}

uint64_t Distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

void JudgeGeometry(const Image& image, const Adder& add) {
  const Footer& f = image.footer;
  uint64_t chs = f.geometry.Sectors(), sectors = f.current_size / kSectorSize;
  if (IsSaturated(f.geometry)) return;
  if (chs > DivRoundUp(f.current_size, kSectorSize)) {
    Finding finding =
        At(Problem::kVhdGeometryExceedsSize, "footer", FooterAt(image) + footer_at::kCylinders, 4,
           fmt::format("the geometry has {} sectors, the disk {}", chs, sectors));
    finding.guest = MakeGuestRange(f.current_size, (chs - sectors) * kSectorSize);
    finding.layer = kActiveLayer;
    if (chs - sectors > kMostRoundingUp) finding.repair = RepairClass::kAll;
    add.out->Add(std::move(finding));
    return;
  }
  Geometry right = GeometryFor(sectors);
  uint64_t cylinder = std::max<uint64_t>(uint64_t{f.geometry.heads} * f.geometry.sectors_per_track,
                                         uint64_t{right.heads} * right.sectors_per_track);
  if (f.geometry == right || Distance(chs, right.Sectors()) <= cylinder) return;
  Creator creator = CreatorOf(f.creator_app);
  Finding finding =
      At(Problem::kVhdGeometryMismatch, "footer", FooterAt(image) + footer_at::kCylinders, 4,
         fmt::format("the geometry has {} sectors, the disk {}", chs, sectors));
  if (creator.by_chs || creator.qemu_by_chs) finding.repair = RepairClass::kNone;
  add.out->Add(std::move(finding));
}

void JudgePolicy(const Image& image, const Adder& add) {
  const Footer& f = image.footer;
  if (IsSaturated(f.geometry) || ChsBytes(f) == f.current_size) return;
  Creator creator = CreatorOf(f.creator_app);
  uint64_t ours = VirtualSize(f, SizePolicy::kAuto), qemu = QemuVirtualSize(f);
  if (creator.known && ours == qemu) return;
  Finding finding =
      At(Problem::kVhdSizePolicyAmbiguous, "footer", FooterAt(image) + footer_at::kCreatorApp, 4,
         fmt::format("'{}': {} bytes by current_size, {} by the geometry",
                     FourCcText(f.creator_app), f.current_size, ChsBytes(f)));
  if (creator.known) finding.severity = Severity::kInfo;
  add.out->Add(std::move(finding));
}

}  // namespace

void JudgeFooterFields(const Image& image, Findings* out) {
  if (!FieldsAreStored(image)) return;
  const Footer& f = image.footer;
  Adder add{image, out};
  if (f.version >> 16 != kVersion1 >> 16) {
    add(Problem::kVhdFooterVersion, footer_at::kVersion, 4, Hex(f.version));
  }
  if ((f.features & kFeatureReserved) == 0 || (f.features & ~3u) != 0) {
    Finding finding = At(Problem::kVhdFooterFeatures, "footer",
                         FooterAt(image) + footer_at::kFeatures, 4, Hex(f.features));
    if ((f.features & kFeatureReserved) != 0) finding.repair = RepairClass::kNone;
    out->Add(std::move(finding));
  }
  if ((f.features & kFeatureTemporary) != 0) add(Problem::kVhdTemporary, footer_at::kFeatures, 4);
  JudgeType(image, add);
  JudgeFixed(image, add);
  if (!AllZero(Bytes(f.raw).subspan(footer_at::kReserved)) || f.hidden > 1) {
    add(Problem::kVhdFooterReserved, footer_at::kHidden, kFooterSize - footer_at::kHidden);
  }
  if (IsNull(f.unique_id)) add(Problem::kVhdUuidNull, footer_at::kUniqueId, 16);
  constexpr int64_t kSlack = 30 * 60;
  if (kEpoch + int64_t{f.timestamp} > std::time(nullptr) + kSlack) {
    add(Problem::kVhdTimestampFuture, footer_at::kTimestamp, 4, DateText(f.timestamp));
  }
  if (f.saved_state != 0) {
    add(Problem::kVhdSavedState, footer_at::kSavedState, 1, fmt::format("{}", f.saved_state));
  }
}

void JudgeSizes(const Image& image, Findings* out) {
  if (!FieldsAreStored(image)) return;
  const Footer& f = image.footer;
  Adder add{image, out};
  constexpr uint64_t kAt = footer_at::kCurrentSize;
  if (image.kind == Kind::kFixed && image.trailing.state != SlotState::kAbsent &&
      image.trailing.offset != f.current_size) {
    Finding finding = At(Problem::kVhdFixedSize, "footer", FooterAt(image) + kAt, 8,
                         fmt::format("the disk has {} bytes, the file holds {}", f.current_size,
                                     image.trailing.offset));
    if (f.current_size > image.trailing.offset) {
      uint64_t lacking = f.current_size - image.trailing.offset;
      finding.guest = MakeGuestRange(image.trailing.offset, lacking);
      finding.layer = kActiveLayer;
      if (lacking >= kDefaultBlockSize) finding.repair = RepairClass::kAll;
    } else {
      finding.repair = RepairClass::kAll;
      finding.effect = Effect::kNone;
    }
    out->Add(std::move(finding));
  }
  if (f.current_size == 0) add(Problem::kVhdSizeZero, kAt, 8);
  if (f.current_size % kSectorSize != 0) {
    add(Problem::kVhdSizeUnaligned, kAt, 8, fmt::format("{} bytes", f.current_size));
  }
  if (image.sparse() && image.VirtualSize() / kSectorSize > kMaxSectors) {
    add(Problem::kVhdSizeLimit, kAt, 8, HumanSize(image.VirtualSize()));
  }
  if (f.original_size != f.current_size) {
    add(Problem::kVhdOriginalSize, footer_at::kOriginalSize, 8,
        fmt::format("made with {} bytes, now {}", f.original_size, f.current_size));
  }
  if (f.current_size != 0) {
    JudgeGeometry(image, add);
    JudgePolicy(image, add);
  }
}

}  // namespace imgfsck::vhd
