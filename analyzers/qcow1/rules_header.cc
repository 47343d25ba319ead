// SPDX-License-Identifier: Apache-2.0
// What the header alone shows, and the files and checksums that it names. Reads nothing but the
// name and the L1 table.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "analyzers/common/linked_file.h"
#include "analyzers/qcow1/rules.h"
#include "base/text.h"
#include "formats/qcow1/xen.h"

namespace imgfsck::qcow1 {
namespace {

bool Overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
  return a < SaturatingAdd(b, b_length) && b < SaturatingAdd(a, a_length);
}

bool IsText(const std::string& name) {
  return std::none_of(name.begin(), name.end(), [](char c) { return c >= 0 && c < ' '; });
}

bool NameOverL1(const Image& image) {
  const Header& h = image.header;
  return image.walkable && image.backing_name &&
         Overlap(h.backing_file_offset, h.backing_file_size, h.l1_table_offset,
                 image.geometry.l1_bytes());
}

void JudgeSize(const Image& image, Findings* out) {
  const Header& h = image.header;
  if (h.size < kMinSize) {
    out->Add(HeaderFinding(Problem::kQcowSizeSmall, "size", fmt::format("{} bytes", h.size)));
  } else if (!IsAligned(h.size, kSector)) {
    out->Add(HeaderFinding(Problem::kQcowSizeUnaligned, "size",
                           fmt::format("{} bytes too many", h.size % kSector)));
  }
  if (GeometryIsSane(h) && image.geometry.l1_entries > kMaxL1Entries) {
    out->Add(HeaderFinding(Problem::kQcowSizeOverflow, "size",
                           fmt::format("{} bytes need {} table entries, {} are possible", h.size,
                                       image.geometry.l1_entries, kMaxL1Entries)));
  }
}

void JudgeL1Place(const Image& image, Findings* out) {
  const Header& h = image.header;
  std::string at = fmt::format("at {}", h.l1_table_offset);
  if (!image.l1_clear && h.l1_table_offset >= image.HeaderEnd())
    at += ", where no table of that length stands";
  if (!image.l1_clear || (NameOverL1(image) && IsText(*image.backing_name))) {
    out->Add(HeaderFinding(Problem::kQcowL1Offset, "l1_table_offset", at));
    return;
  }
  if (!IsAligned(h.l1_table_offset, 8)) {
    Finding f = HeaderFinding(Problem::kQcowL1Offset, "l1_table_offset", at + ", unaligned");
    f.severity = Severity::kWarning;
    f.repair = RepairClass::kNone;
    f.effect = Effect::kNone;
    out->Add(std::move(f));
  }
  uint64_t length = image.geometry.l1_bytes();
  if (!image.walkable || RangeFits(h.l1_table_offset, length, image.file_size)) return;
  bool begun = h.l1_table_offset < image.file_size;
  uint64_t present = begun ? (image.file_size - h.l1_table_offset) / 8 : 0;
  Finding f = MakeFinding(Problem::kQcowL1PastEof, "l1");
  f.host = MakeHostRange(h.l1_table_offset, length);
  f.layer = kActiveLayer;
  uint64_t first = present * image.geometry.span;
  if (first < image.geometry.virtual_size) {
    f.guest = MakeGuestRange(first, image.geometry.virtual_size - first);
  }
  f.detail = fmt::format("{} of {} entries are in the file", present, image.geometry.l1_entries);
  if (!begun) f.repair = RepairClass::kAll;
  out->Add(std::move(f));
}

void JudgeName(const Image& image, Findings* out) {
  const Header& h = image.header;
  if (!h.has_backing_name()) {
    // QEMU reads a name of no bytes, too, and cannot where no file reaches.
    if (h.backing_file_offset > std::numeric_limits<int64_t>::max()) {
      out->Add(HeaderFinding(Problem::kQcowBackingName, "backing_file_offset",
                             fmt::format("at {:#x}, and of no bytes", h.backing_file_offset)));
    }
    return;
  }
  std::string wrong;
  if (h.backing_file_size > kMaxBackingNameLength) {
    wrong = fmt::format("{} bytes long", h.backing_file_size);
  } else if (!image.backing_name) {
    wrong = fmt::format("at {}, behind the end of the file", h.backing_file_offset);
  } else if (image.backing_name->find('\0') != std::string::npos) {
    wrong = "it holds a zero byte";
  } else if (!image.name_is_clear()) {
    wrong = "it lies over the header";
  } else if (NameOverL1(image) && !IsText(*image.backing_name)) {
    wrong = "it lies over the top table";
  }
  if (wrong.empty()) return;
  Finding f = MakeFinding(Problem::kQcowBackingName, "backing-name");
  f.host = MakeHostRange(h.backing_file_offset, h.backing_file_size);
  f.detail = std::move(wrong);
  out->Add(std::move(f));
}

}  // namespace

Finding HeaderFinding(Problem problem, std::string_view field, std::string detail) {
  Finding f = MakeFinding(problem, "header");
  for (const FieldSpec& spec : HeaderFields()) {
    if (spec.name == field) f.host = MakeHostRange(spec.offset, spec.length);
  }
  f.detail = std::move(detail);
  return f;
}

void JudgeHeader(const Image& image, Findings* out) {
  const Header& h = image.header;
  if (h.magic != kMagic) {
    out->Add(HeaderFinding(Problem::kQcowMagic, "magic", fmt::format("{:#010x}", h.magic)));
  }
  if (h.version != kVersion) {
    out->Add(HeaderFinding(Problem::kQcowVersion, "version", fmt::format("{}", h.version)));
  }
  JudgeSize(image, out);
  if (h.cluster_bits < kMinClusterBits || h.cluster_bits > kMaxClusterBits) {
    out->Add(HeaderFinding(Problem::kQcowClusterBits, "cluster_bits",
                           fmt::format("2^{} bytes", h.cluster_bits)));
  }
  if (h.l2_bits < kMinL2Bits || h.l2_bits > kMaxL2Bits) {
    out->Add(
        HeaderFinding(Problem::kQcowL2Bits, "l2_bits", fmt::format("2^{} entries", h.l2_bits)));
  }
  if (h.padding != 0) {
    out->Add(HeaderFinding(Problem::kQcowPadding, "padding", fmt::format("{:#06x}", h.padding)));
  }
  if (h.crypt_method > kCryptAes) {
    out->Add(HeaderFinding(Problem::kQcowCrypt, "crypt_method", fmt::format("{}", h.crypt_method)));
  }
  JudgeL1Place(image, out);
  JudgeName(image, out);
  if (h.has_backing_name() && h.cluster_bits != kMinClusterBits && GeometryIsSane(h)) {
    out->Add(HeaderFinding(Problem::kQcowBackingCluster, "cluster_bits",
                           fmt::format("{}", HumanSize(image.geometry.cluster_size))));
  }
  if (image.xen) {
    Finding f = MakeFinding(Problem::kQcowXenHeader, "xen-header");
    f.host = MakeHostRange(kXenHeaderOffset, kXenHeaderLength);
    out->Add(std::move(f));
  }
}

void JudgeLinks(const Image& image, const CheckOptions& options, Findings* out) {
  const Header& h = image.header;
  LinkedFile base;
  if (image.backing_name) base = LookAtLinkedFile(options.path, *image.backing_name);
  bool missing =
      base.state == LinkedFile::State::kMissing || base.state == LinkedFile::State::kItself;
  if (missing && !options.chain) {  // with --chain the chain's own check says so
    Finding f = HeaderFinding(Problem::kQcowBackingMissing, "backing_file_offset",
                              Printable(*image.backing_name));
    if (base.state == LinkedFile::State::kItself) f.detail += " is this image itself";
    out->Add(std::move(f));
  }
  if (h.mtime == 0 || (base.state == LinkedFile::State::kNotLooked && image.backing_name)) return;
  bool matches = base.state == LinkedFile::State::kPresent &&
                 static_cast<uint32_t>(base.mtime_seconds) == h.mtime;
  if (missing || matches) return;
  out->Add(HeaderFinding(Problem::kQcowMtime, "mtime",
                         image.backing_name
                             ? fmt::format("{} recorded, {} found", h.mtime, base.mtime_seconds)
                             : fmt::format("{} recorded, no backing file", h.mtime)));
}

Status JudgeXen(const Image& image, Findings* out) {
  if (!image.xen || !image.walkable || !image.l1_clear) return Ok();
  if (image.l1_little_endian) {
    Finding f = MakeFinding(Problem::kQcowXenL1Endian, "l1");
    f.host = MakeHostRange(image.header.l1_table_offset, image.geometry.l1_bytes());
    f.count = image.l1.size();
    f.evidence = "more entries point into the file when their bytes are turned round";
    out->Add(std::move(f));
  }
  IMG_ASSIGN_OR_RETURN(uint32_t checksum,
                       XenChecksum(*image.source, image.geometry, image.header.l1_table_offset,
                                   image.l1_little_endian));
  if (checksum == image.xen->checksum) return Ok();
  Finding f = MakeFinding(Problem::kQcowXenCksum, "xen-header");
  f.host = MakeHostRange(kXenHeaderOffset + 4, 4);
  f.detail = fmt::format("stored {:08x}, computed {:08x}", image.xen->checksum, checksum);
  out->Add(std::move(f));
  return Ok();
}

}  // namespace imgfsck::qcow1
