// SPDX-License-Identifier: Apache-2.0
#include "triage/picture.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/range_set.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMostCells = 128 * 64;
constexpr uint64_t kReadAtOnce = 64 * kKiB;  // read at a time

class Painter {
 public:
  Painter(uint64_t size, CellState background) {
    picture_.size = size;
    if (size == 0) return;
    picture_.cell = AlignUp(DivRoundUp(size, kMostCells), kSector);
    picture_.cells.assign(DivRoundUp(size, picture_.cell), static_cast<uint8_t>(background));
  }

  // What lies outside is not seen.
  void Paint(uint64_t offset, uint64_t length, CellState state) {
    if (offset >= picture_.size || length == 0) return;
    length = std::min(length, picture_.size - offset);
    uint64_t& bytes = picture_.bytes[static_cast<size_t>(state)];
    bytes = SaturatingAdd(bytes, length);
    const uint64_t last = (offset + length - 1) / picture_.cell;
    for (uint64_t i = offset / picture_.cell; i <= last; ++i) {
      picture_.cells[i] = std::max(picture_.cells[i], static_cast<uint8_t>(state));
    }
  }
  Picture Take() { return std::move(picture_); }

 private:
  Picture picture_;
};

CellState StateOfRegion(std::string_view kind) {
  if (kind == "data") return CellState::kData;
  if (kind == "compressed") return CellState::kCompressed;
  if (kind == "vm-state") return CellState::kData;
  return CellState::kMetadata;
}

CellState StateOfMapping(MappingState state) {
  switch (state) {
    case MappingState::kUnallocated:
      return CellState::kUnallocated;
    case MappingState::kZero:
      return CellState::kZero;
    case MappingState::kData:
      return CellState::kData;
    case MappingState::kCompressed:
      return CellState::kCompressed;
  }
  return CellState::kUnallocated;
}

// Nothing: the finding is not drawn.
std::optional<CellState> StateOfFinding(const Finding& finding) {
  if (finding.problem == Problem::kImageUnreadable) return CellState::kUnreadable;
  const Severity severity = finding.severity_or_default();
  if (severity == Severity::kLeak) return CellState::kLeaked;
  if (severity != Severity::kCorruption) return std::nullopt;
  return finding.also.empty() ? CellState::kDamaged : CellState::kOverlap;
}

template <class Row, class Use>
Status ForEachRow(std::unique_ptr<RowCursor<Row>> cursor, Use use) {
  std::vector<Row> batch;
  while (cursor != nullptr) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(cursor->NextBatch(&batch));
    if (batch.empty()) break;
    for (const Row& row : batch) use(row);
  }
  return Ok();
}

// Paints what of [begin, end) is not zeros. Whether zeros are stored is left open: the host calls
// space that was set aside a hole until somebody reads it.
Status PaintUnclaimed(const ByteSource& file, uint64_t begin, uint64_t end, Painter* painter) {
  ByteVector buffer(kReadAtOnce);
  for (uint64_t at = begin; at < end;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    auto extent = file.ExtentAt(at);
    if (!extent || extent->length == 0) extent = HostExtent{at, end - at, false};
    const uint64_t stop = std::min(end, SaturatingAdd(extent->offset, extent->length));
    while (at < stop && !extent->hole) {
      const MutableBytes bytes = MutableBytes(buffer).first(std::min(kReadAtOnce, stop - at));
      const bool read = ReadExact(file, at, bytes).has_value();
      for (uint64_t done = 0; done < bytes.size(); done += kSector) {
        const uint64_t length = std::min<uint64_t>(kSector, bytes.size() - done);
        if (read && AllZero(Bytes(bytes).subspan(done, length))) continue;
        painter->Paint(at + done, length, CellState::kFree);
      }
      at += bytes.size();
    }
    at = stop;
  }
  return Ok();
}

}  // namespace

std::string_view ToText(CellState state) {
  static constexpr std::string_view kTexts[] = {
      "empty",      "unallocated",      "zero",   "unclaimed", "metadata", "data",
      "compressed", "changed (bitmap)", "leaked", "shared",    "damaged",  "unreadable"};
  static_assert(std::size(kTexts) == static_cast<size_t>(CellState::kStates));
  return kTexts[static_cast<size_t>(state)];
}

Result<Picture> PictureOfFile(const ByteSource& file, const ImageRows& rows,
                              const Findings& findings) {
  Painter painter(file.Size(), CellState::kEmpty);
  RangeSet claimed;
  IMG_RETURN_IF_ERROR(ForEachRow(rows.Regions({}), [&](const RegionRow& region) {
    painter.Paint(region.host_offset, region.length, StateOfRegion(region.kind));
    claimed.Add(region.host_offset, region.length);
  }));
  uint64_t at = 0;
  for (const auto& [begin, end] : claimed.Ranges()) {
    IMG_RETURN_IF_ERROR(PaintUnclaimed(file, at, std::min(begin, file.Size()), &painter));
    at = end;
  }
  IMG_RETURN_IF_ERROR(PaintUnclaimed(file, at, file.Size(), &painter));
  for (const Finding& finding : findings.kept()) {
    const auto state = StateOfFinding(finding);
    if (finding.host && state) {
      painter.Paint(finding.host->offset.value, finding.host->length, *state);
    }
  }
  return painter.Take();
}

Result<Picture> PictureOfDisk(const ImageRows& rows, const Findings& findings) {
  Painter painter(rows.Image().virtual_size, CellState::kUnallocated);
  RowQuery query;
  query.layer = kActiveLayer;
  IMG_RETURN_IF_ERROR(ForEachRow(rows.Mappings(query), [&](const MappingRow& row) {
    if (row.layer == kActiveLayer) {
      painter.Paint(row.guest_offset, row.length, StateOfMapping(row.state));
    }
  }));
  IMG_RETURN_IF_ERROR(ForEachRow(rows.BitmapRanges(), [&](const BitmapRangeRow& row) {
    painter.Paint(row.guest_offset, row.length, CellState::kDirty);
  }));
  for (const Finding& finding : findings.kept()) {
    const auto state = StateOfFinding(finding);
    const bool seen = finding.effect_or_default() != Effect::kNone;
    if (!finding.guest || finding.layer != kActiveLayer || !state || !seen) continue;
    painter.Paint(finding.guest->offset.value, finding.guest->length, *state);
  }
  return painter.Take();
}

}  // namespace imgfsck
