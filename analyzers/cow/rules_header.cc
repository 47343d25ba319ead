// SPDX-License-Identifier: Apache-2.0
// What the header alone shows. Reads nothing beyond it.
#include <fmt/format.h>

#include "analyzers/cow/rules.h"
#include "base/text.h"

namespace imgfsck::cow {
namespace {

Finding FieldFinding(const Image& image, Problem problem, std::string_view field,
                     std::string detail) {
  Finding f = MakeFinding(problem, "header");
  for (const FieldPlace& place : FieldsOf(image.header.spec())) {
    if (place.name == field) f.host = MakeHostRange(place.offset, place.length);
  }
  f.detail = std::move(detail);
  return f;
}

void JudgeLayout(const Image& image, Findings* out) {
  const Header& h = image.header;
  const Layout& layout = h.spec();
  if (!h.magic_found) out->Add(FieldFinding(image, Problem::kCowMagic, "magic", ""));
  if (h.version != layout.version) {
    out->Add(FieldFinding(image, Problem::kCowVersion, "version",
                          fmt::format("{}, the rest looks like {}", h.version, layout.version)));
  }
  if (h.endian_mismatch()) out->Add(FieldFinding(image, Problem::kCowEndian, "magic", ""));
  if (!image.layouts.clear) {
    const auto& found = image.layouts.candidates;
    Finding f =
        FieldFinding(image, Problem::kCowLayoutAmbiguous, "",
                     fmt::format("{} ({} points), then {} ({})", layout.name, found[0].score,
                                 found[1].header.spec().name, found[1].score));
    f.confidence = 0.5;
    out->Add(std::move(f));
  }
  if (layout.id == LayoutId::kUml3Broken) {
    out->Add(FieldFinding(image, Problem::kCowV3BrokenLayout, "version", ""));
  } else if (!layout.native) {
    out->Add(
        FieldFinding(image, Problem::kCowLayoutForeignAbi, "version", std::string(layout.name)));
  }
}

void JudgeNumbers(const Image& image, Findings* out) {
  const Header& h = image.header;
  const Layout& layout = h.spec();
  bool sane = SectorSizeIsSane(h.sectorsize);
  if (!sane || (layout.qemu && h.sectorsize != kSectorSize)) {
    out->Add(FieldFinding(image, Problem::kCowSectorsize, "sectorsize",
                          fmt::format("{} bytes", h.sectorsize)));
  }
  if (layout.alignment_offset != 0 && !AlignmentIsSane(h.alignment, sane ? h.sectorsize : 512)) {
    out->Add(FieldFinding(image, Problem::kCowAlignment, "alignment",
                          fmt::format("{} bytes", h.alignment)));
  }
  if (layout.format_offset != 0 && h.cow_format != 0) {
    out->Add(FieldFinding(image, Problem::kCowFormatField, "cow_format",
                          fmt::format("{}", h.cow_format)));
  }
  if (h.size == 0) {
    out->Add(FieldFinding(image, Problem::kCowSizeZero, "size", ""));
  } else if (sane && h.size % h.sectorsize != 0) {
    out->Add(FieldFinding(image, Problem::kCowSizeUnaligned, "size",
                          fmt::format("{} bytes in the last sector", h.size % h.sectorsize)));
  }
  bool overflow = h.size > (uint64_t{1} << 62);
  if (overflow || (image.geometry.valid && image.geometry.data_offset >= kMaxDataOffset)) {
    out->Add(
        FieldFinding(image, Problem::kCowSizeOverflow, "size", fmt::format("{} bytes", h.size)));
  }
}

void JudgePath(const Image& image, Findings* out) {
  const Header& h = image.header;
  auto add = [&](Problem problem, std::string detail) {
    out->Add(FieldFinding(image, problem, "backing_file", std::move(detail)));
  };
  if (!h.path_terminated) add(Problem::kCowPathUnterminated, "");
  if (h.path.empty()) {
    add(Problem::kCowPathEmpty, "");
  } else if (!h.spec().qemu && !h.path.starts_with('/')) {
    add(Problem::kCowPathRelative, Printable(h.path));
  }
  if (h.path_garbage) add(Problem::kCowPathGarbage, "");
}

}  // namespace

void JudgeHeader(const Image& image, Findings* out) {
  if (image.file_size == 0) {
    out->Add(MakeFinding(Problem::kCowEmptyFile, "file"));
    return;
  }
  uint64_t length = image.header.spec().header_length;
  if (image.file_size < length) {
    Finding f = MakeFinding(Problem::kCowHeaderTruncated, "header");
    f.host = MakeHostRange(image.file_size, length - image.file_size);
    f.detail = fmt::format("{} of {} bytes", image.file_size, length);
    out->Add(std::move(f));
    return;
  }
  JudgeLayout(image, out);
  JudgeNumbers(image, out);
  JudgePath(image, out);
}

}  // namespace imgfsck::cow
