// SPDX-License-Identifier: Apache-2.0
// qcow version 1 and the COW formats of QEMU and User-Mode Linux.
#include <fmt/format.h>

#include <algorithm>

#include "formats/cow/image.h"
#include "formats/qcow1/image.h"
#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

// What stands in the field `name` of a qcow1 header.
void AtField(ReasonCode code, std::string_view name, std::string detail, ReasonCollector& out) {
  const auto& spec = *std::ranges::find(qcow1::HeaderFields(), name, &qcow1::FieldSpec::name);
  out.AddAt(code, spec.offset, spec.length, std::move(detail));
}

void JudgeBacking(const qcow1::Image& image, ReasonCollector& out) {
  const qcow1::Header& h = image.header;
  if (h.backing_file_offset == 0) return;
  if (image.backing_name) {
    out.AddName(ReasonCode::kRefBacking, *image.backing_name, h.backing_file_offset,
                h.backing_file_size);
  } else {
    AtField(ReasonCode::kRefBacking, "backing_file_offset", "its name cannot be read", out);
  }
  if (h.backing_file_size > qcow1::kMaxBackingNameLength) {
    AtField(ReasonCode::kMemSafety, "backing_file_size", fmt::format("{}", h.backing_file_size),
            out);
  }
  const uint64_t end = SaturatingAdd(h.backing_file_offset, h.backing_file_size);
  const bool on_header = h.backing_file_offset < image.HeaderEnd();
  const bool on_table =
      image.walkable && end > h.l1_table_offset &&
      h.backing_file_offset < SaturatingAdd(h.l1_table_offset, image.geometry.l1_bytes());
  if (on_header || on_table || end > image.file_size) {
    out.AddAt(ReasonCode::kNameOverlap, h.backing_file_offset, h.backing_file_size,
              on_header  ? "on the header"
              : on_table ? "on the L1 table"
                         : "reaches past the end of the file");
  }
}

}  // namespace

void JudgeQcow1(ReasonCollector& out) {
  auto parsed = qcow1::ParseImage(out.file());
  if (!parsed) return;
  const qcow1::Image& image = **parsed;
  const qcow1::Header& h = image.header;
  JudgeBacking(image, out);
  if (h.crypt_method == qcow1::kCryptAes) {
    AtField(ReasonCode::kLegacyCrypt, "crypt_method", "", out);
  } else if (h.crypt_method != qcow1::kCryptNone) {
    AtField(ReasonCode::kFeatureUnknown, "crypt_method", fmt::format("method {}", h.crypt_method),
            out);
  }
  if (!qcow1::GeometryIsSane(h)) {
    AtField(ReasonCode::kMemSafety, "cluster_bits",
            fmt::format("cluster_bits {}, l2_bits {}", h.cluster_bits, h.l2_bits), out);
    return;
  }
  const qcow1::Geometry g = qcow1::GeometryOf(h);
  if (g.l1_entries > qcow1::kMaxL1Entries) {
    AtField(ReasonCode::kDosTable, "size", fmt::format("{} entries", g.l1_entries), out);
  } else if (SaturatingAdd(h.l1_table_offset, g.l1_bytes()) > image.file_size) {
    AtField(ReasonCode::kDosTable, "l1_table_offset",
            fmt::format("{} bytes of L1 table in a file of {}", g.l1_bytes(), image.file_size),
            out);
  }
}

void JudgeCow(ReasonCollector& out) {
  auto parsed = cow::ParseImage(out.file());
  if (!parsed) return;
  const cow::Image& image = **parsed;
  const cow::Header& h = image.header;
  const cow::Layout& spec = h.spec();
  if (!h.path.empty()) {
    out.AddName(ReasonCode::kRefBacking, h.path, spec.path_offset, h.path.size());
  }
  if (!h.path_terminated) {
    out.AddAt(ReasonCode::kMemSafety, spec.path_offset, spec.path_length, "a name without an end");
  }
  if (!image.geometry.valid) {
    out.AddAt(
        ReasonCode::kMemSafety, spec.size_offset, 8,
        fmt::format("size {}, sector size {}, alignment {}", h.size, h.sectorsize, h.alignment));
  } else if (image.geometry.bitmap_end() > image.file_size) {
    out.AddAt(ReasonCode::kDosTable, spec.size_offset, 8,
              fmt::format("{} bytes of bitmap in a file of {}", image.geometry.bitmap_bytes,
                          image.file_size));
  }
}

}  // namespace imgfsck
