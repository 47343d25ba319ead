// SPDX-License-Identifier: Apache-2.0
// Rows 1 to 12: are both footers there, sound and the same?
#include <fmt/format.h>
#include <sys/stat.h>

#include "analyzers/vhd/rules.h"
#include "base/text.h"

namespace imgfsck::vhd {

Finding At(Problem problem, std::string_view structure, uint64_t offset, uint64_t length,
           std::string detail) {
  Finding f;
  f.problem = problem;
  f.structure = structure;
  f.host = MakeHostRange(offset, length);
  f.detail = std::move(detail);
  return f;
}

namespace {

// Split images (before 2005): x.vhd, x.v01 ...; only the last piece has the footer.
bool HasSecondPiece(const std::string& path) {
  size_t dot = path.rfind('.');
  if (dot == std::string::npos || path.find('/', dot) != std::string::npos) return false;
  struct stat status = {};
  return stat((path.substr(0, dot) + ".v01").c_str(), &status) == 0;
}

void JudgeMissing(const Image& image, const CheckOptions& options, Findings* out) {
  uint64_t end = image.file_size;
  uint64_t length = std::min(end, kFooterSize);
  Finding f = At(Problem::kVhdFooterMissing, "footer", end - length, length);
  if (image.trailing.state == SlotState::kNoCookie) {
    f.detail = "its signature is overwritten";
    f.host = MakeHostRange(image.trailing.offset, image.trailing.length);
  } else if (!options.path.empty() && HasSecondPiece(options.path)) {
    f.detail = "this is the first piece of a split image, whose last piece has the footer";
    f.repair = RepairClass::kNone;
  } else if (!image.sparse() || !image.leading.sound()) {
    f.repair = RepairClass::kAll;
  }
  if (image.footer_from.origin != Origin::kStored) {
    f.evidence = image.footer_from.evidence;
    f.confidence = image.footer_from.confidence;
  }
  out->Add(std::move(f));
}

void JudgeTrailing(const Image& image, const CheckOptions& options, Findings* out) {
  const FooterSlot& slot = image.trailing;
  auto add = [&](Problem problem, std::string detail = {}) {
    out->Add(At(problem, "footer", slot.offset, slot.length, std::move(detail)));
  };
  switch (slot.state) {
    case SlotState::kAbsent:
    case SlotState::kRemains:
    case SlotState::kNoCookie:
      JudgeMissing(image, options, out);
      break;
    case SlotState::kKilled: {
      Finding f = At(Problem::kVhdFooterKilled, "footer", slot.offset, slot.length);
      if (!image.sparse() || !image.leading.sound()) {  // there is no other
        f.severity = Severity::kCorruption;
        f.repair = RepairClass::kAll;
        f.effect = Effect::kUnreadable;
      }
      out->Add(std::move(f));
      break;
    }
    case SlotState::kPoisoned:
      add(Problem::kVhdFooterPoisoned);
      break;
    case SlotState::kBadChecksum: {
      Problem problem =
          slot.footer.checksum == 0 ? Problem::kVhdFooterChecksumZero : Problem::kVhdFooterChecksum;
      Finding f = At(problem, "footer", slot.offset + footer_at::kChecksum, 4,
                     fmt::format("stored {:#010x}, computed {:#010x}", slot.footer.checksum,
                                 Checksum(slot.footer.raw, footer_at::kChecksum)));
      if (!image.sparse() || !image.leading.sound()) f.repair = RepairClass::kAll;
      out->Add(std::move(f));
      break;
    }
    case SlotState::kSound:
      break;
  }
  if (slot.state != SlotState::kAbsent && !image.trailing_at_end) {
    uint64_t end = slot.offset + slot.length;
    out->Add(At(Problem::kVhdFooterNotAtEof, "footer", end, image.file_size - end,
                fmt::format("{} bytes behind it", image.file_size - end)));
  }
  if (slot.length == kLegacyFooterSize) add(Problem::kVhdFooter511);
  uint64_t odd = image.file_size % kSectorSize;
  if (odd != 0 && odd != kLegacyFooterSize) {
    out->Add(At(Problem::kVhdFileLengthUnaligned, "file", image.file_size - odd, odd,
                fmt::format("{} bytes", image.file_size)));
  }
}

void JudgeLeading(const Image& image, Findings* out) {
  const FooterSlot& slot = image.leading;
  if (!image.sparse()) return;
  if (slot.state < SlotState::kBadChecksum) {
    Finding f = At(Problem::kVhdFooterCopyMissing, "footer-copy", 0, kFooterSize);
    bool proven = slot.state == SlotState::kNoCookie || image.trailing.sound();
    if (!proven) f.repair = RepairClass::kAll;
    out->Add(std::move(f));
  } else if (slot.state == SlotState::kBadChecksum) {
    Finding f = At(Problem::kVhdFooterCopyChecksum, "footer-copy", footer_at::kChecksum, 4,
                   fmt::format("stored {:#010x}, computed {:#010x}", slot.footer.checksum,
                               Checksum(slot.footer.raw, footer_at::kChecksum)));
    if (!image.trailing.sound()) f.repair = RepairClass::kAll;
    out->Add(std::move(f));
  }
}

// Row 9: field by field. What changes the view of the disk is corruption, the rest a warning.
void JudgeMismatch(const Image& image, Findings* out) {
  if (!image.sparse() || !image.leading.sound() || !image.trailing.sound()) return;
  const Footer &a = image.trailing.footer, &b = image.leading.footer;
  if (a.raw == b.raw) return;
  std::string grave, light;
  auto compare = [](bool differs, std::string_view name, std::string* names) {
    if (!differs) return;
    if (!names->empty()) *names += ", ";
    *names += name;
  };
  compare(a.current_size != b.current_size, "current_size", &grave);
  compare(a.disk_type != b.disk_type, "disk_type", &grave);
  compare(a.geometry != b.geometry, "geometry", &grave);
  compare(a.data_offset != b.data_offset, "data_offset", &grave);
  compare(a.original_size != b.original_size, "original_size", &light);
  compare(a.timestamp != b.timestamp, "timestamp", &light);
  compare(a.unique_id != b.unique_id, "unique_id", &light);
  compare(a.features != b.features, "features", &light);
  compare(a.version != b.version, "file_format_version", &light);
  compare(a.creator_app != b.creator_app, "creator_application", &light);
  compare(a.creator_version != b.creator_version, "creator_version", &light);
  compare(a.creator_os != b.creator_os, "creator_host_os", &light);
  compare(a.saved_state != b.saved_state, "saved_state", &light);
  bool old_tap = a.creator_app == kCreatorTap && a.creator_version <= kBatmapVersionSigned;
  compare(a.hidden != b.hidden && !old_tap, "hidden", &light);
  Bytes rest_a = Bytes(a.raw).subspan(footer_at::kReserved);
  Bytes rest_b = Bytes(b.raw).subspan(footer_at::kReserved);
  compare(!std::equal(rest_a.begin(), rest_a.end(), rest_b.begin()), "reserved", &light);
  if (grave.empty() && light.empty()) return;
  std::string names = grave + (grave.empty() || light.empty() ? "" : ", ") + light;
  Finding f =
      At(Problem::kVhdFooterCopyMismatch, "footer-copy", 0, kFooterSize, "they differ in " + names);
  if (!grave.empty()) {
    f.severity = Severity::kCorruption;
    f.repair = RepairClass::kAll;
    f.effect = Effect::kWrong;
    // Which is right about the header's place is seen there.
    bool proven = grave == "data_offset" && image.header_state == SlotState::kSound &&
                  (a.data_offset == image.header_offset || b.data_offset == image.header_offset);
    // A type that does not exist is not the one that the structures are of.
    bool only_type = grave == "disk_type" && a.TypeKnown() != b.TypeKnown();
    if (proven || only_type) f.repair = RepairClass::kSafe;
  }
  out->Add(std::move(f));
}

}  // namespace

void JudgeFooters(const Image& image, const CheckOptions& options, Findings* out) {
  if (image.file_size < kLegacyFooterSize) {
    out->Add(At(Problem::kVhdFileTooSmall, "file", 0, image.file_size,
                fmt::format("{} bytes", image.file_size)));
    return;
  }
  JudgeTrailing(image, options, out);
  JudgeLeading(image, out);
  JudgeMismatch(image, out);
}

}  // namespace imgfsck::vhd
