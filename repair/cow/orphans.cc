// SPDX-License-Identifier: Apache-2.0
// Hands over, for --orphans dir:PATH, what the file holds and the guest does not see: sectors
// without their mark, those that an old layout has no marks for, and bytes behind the data. Changes
// nothing.
#include <fmt/format.h>

#include <algorithm>

#include "formats/common/stored.h"
#include "repair/cow/passes.h"

namespace imgfsck::cow {
namespace {

void TakeSectors(const Image& image, uint64_t first, uint64_t last, std::string_view origin,
                 PassOutcome* outcome) {
  HostRange host = image.HostOf(first, last);
  if (host.offset.value >= image.file_size) return;
  host.length = std::min(host.length, image.file_size - host.offset.value);
  outcome->pieces.push_back({host, image.GuestOf(first, last), std::string(origin)});
}

}  // namespace

Result<PassOutcome> ExportOrphans(const PassContext& context) {
  PassOutcome outcome;
  const Image& image = *StateOf(context.report).image;
  if (!image.walkable) return outcome;
  const Geometry& g = image.geometry;
  IMG_RETURN_IF_ERROR(ForEachUnmarked(image, [&](uint64_t first, uint64_t last) {
    TakeSectors(image, first, last, "data without its mark", &outcome);
    return Ok();
  }));
  for (uint64_t sector = g.tracked_sectors(); sector < g.sectors; ++sector) {  // seven at most
    uint64_t begin = g.HostOf(sector), end = std::min(begin + g.sector_size, image.file_size);
    if (begin >= end) break;
    IMG_ASSIGN_OR_RETURN(bool zeros, ReadsAsZeros(*image.source, begin, end));
    if (!zeros) TakeSectors(image, sector, sector + 1, "data that has no mark", &outcome);
  }
  uint64_t end = AlignUp(g.data_end(), g.sector_size);
  if (end < image.file_size) {
    IMG_ASSIGN_OR_RETURN(bool zeros, ReadsAsZeros(*image.source, end, image.file_size));
    if (!zeros) {
      outcome.pieces.push_back(
          {MakeHostRange(end, image.file_size - end), std::nullopt, "bytes behind the data"});
    }
  }
  if (outcome.pieces.empty()) return outcome;
  uint64_t bytes = 0;
  for (const OrphanPiece& piece : outcome.pieces) bytes += piece.host.length;
  outcome.orphans.kept = outcome.pieces.size();
  outcome.notes.push_back(fmt::format("{} pieces ({} bytes) that the guest does not see",
                                      outcome.pieces.size(), bytes));
  return outcome;
}

}  // namespace imgfsck::cow
