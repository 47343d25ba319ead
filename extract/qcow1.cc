// SPDX-License-Identifier: Apache-2.0
// Of a qcow version 1 image: header, name, L1 and L2 tables, and tables that lost the entry
// pointing to them. Other bytes that nothing refers to are marked where they begin.
#include <algorithm>

#include "analyzers/qcow1/state.h"
#include "extract/selection.h"
#include "formats/common/stored.h"

namespace imgfsck {
namespace {

using qcow1::Image;

bool RangesMeet(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
  return a < SaturatingAdd(b, b_length) && b < SaturatingAdd(a, a_length);
}

// Units of bytes that nothing refers to: each that is not zero gets a mark at its first such byte.
Status MarkGaps(Selection& selection, const qcow1::CheckState& state) {
  const uint64_t unit = std::max<uint64_t>(state.image->geometry.cluster_size, kSector);
  auto kept = [&](uint64_t at) {
    return std::ranges::any_of(state.orphans, [&](const qcow1::OrphanTable& table) {
      return at >= table.offset && at - table.offset < state.image->geometry.l2_bytes;
    });
  };
  std::vector<HostRange> bad;
  auto visit = [&](uint64_t offset, Bytes piece) -> Result<bool> {
    selection.Progress(offset);
    for (uint64_t at = offset; at < offset + piece.size();) {
      const uint64_t end = std::min(AlignDown(at, unit) + unit, offset + piece.size());
      const Bytes part = piece.subspan(at - offset, end - at);
      const auto first = std::ranges::find_if(part, [](uint8_t b) { return b != 0; });
      if (first != part.end() && !kept(at)) {
        const uint64_t place = at + static_cast<uint64_t>(first - part.begin());
        selection.copy.Mark(place, end - place);
      }
      at = end;
    }
    return true;
  };
  uint64_t at = 0;
  auto gap = [&](uint64_t end) {
    return ForEachStoredPiece(selection.source, at, end, &bad, visit);
  };
  for (const qcow1::Span& span : state.space.covered()) {
    IMG_RETURN_IF_ERROR(gap(span.begin));
    at = span.end;
  }
  return gap(state.image->file_size);
}

// Where no table stands, it is guest data perhaps: entries that make no sense become another that
// makes none.
void KeepImplausible(Selection& selection, const Image& image, uint64_t offset) {
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  ReadL2(image, offset, &entries, &bad);
  ByteVector stored(image.geometry.l2_bytes), cleaned(image.geometry.l2_bytes);
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool nonsense = CheckEntry(image, qcow1::Entry{entries[i]}).damaged();
    PutBe<uint64_t>(stored, 8 * i, entries[i]);
    PutBe<uint64_t>(cleaned, 8 * i, nonsense ? 1 : entries[i]);
  }
  selection.copy.KeepCleaned(offset, stored, cleaned, 8);
}

}  // namespace

Status SelectQcow1(Selection& selection) {
  const qcow1::CheckState& state = qcow1::StateOf(selection.report);
  const Image& image = *state.image;
  selection.copy.Keep(0, qcow1::kXenHeaderOffset + qcow1::kXenHeaderLength);
  if (image.backing_name) {
    selection.copy.Keep(image.header.backing_file_offset, image.header.backing_file_size);
    if (selection.options.redact) {
      const std::string other = selection.RedactedPath(*image.backing_name);
      // Not where damage laid the name over something else.
      const uint64_t begin = image.header.backing_file_offset;
      const bool alone =
          begin >= image.HeaderEnd() &&
          !RangesMeet(begin, other.size(), image.header.l1_table_offset, image.geometry.l1_bytes());
      if (alone) selection.copy.Replace(begin, AsBytes(other));
    }
  }
  if (!image.walkable || !image.l1_clear) return Ok();
  selection.copy.Keep(image.header.l1_table_offset, image.geometry.l1_bytes());
  std::vector<uint64_t> implausible;
  for (size_t i = 0; i < std::min(image.l1.size(), state.fates.size()); ++i) {
    const uint64_t offset = image.l1[i].value;
    if (state.fates[i] == qcow1::TableFate::kWalked) {
      selection.copy.Keep(offset, image.geometry.l2_bytes);
    } else if (state.fates[i] == qcow1::TableFate::kImplausible) {
      implausible.push_back(offset);
    }
  }
  for (const qcow1::OrphanTable& table : state.orphans) {
    selection.copy.Keep(table.offset, image.geometry.l2_bytes);
  }
  IMG_RETURN_IF_ERROR(MarkGaps(selection, state));
  for (uint64_t offset : implausible) KeepImplausible(selection, image, offset);
  return Ok();
}

}  // namespace imgfsck
