// SPDX-License-Identifier: Apache-2.0
// Rows 60 to 64 and 66: XenServer's map of full blocks.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/bat.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kBitsAPiece = 16384 * 8;

// Row 64, and the checksum on the way: the map in pieces, beside the table.
Status JudgeMap(const Image& image, Findings* out) {
  const BatmapHeader& batmap = *image.batmap;
  uint64_t blocks = std::min(image.bat_entries, image.BlocksNeeded());
  uint64_t bytes = std::min(AlignUp(DivRoundUp(blocks, 8), kSectorSize), image.BatmapBytes());
  uint32_t sum = 0;
  std::vector<HostRange> bad;
  ByteVector piece;
  for (uint64_t first = 0; first < bytes * 8; first += kBitsAPiece) {
    IMG_RETURN_IF_ERROR(CheckStop());
    piece.resize(std::min(kBitsAPiece / 8, bytes - first / 8));
    ReadTolerant(*image.source, batmap.offset + first / 8, piece, &bad);
    sum = MapSum(sum, piece, batmap.version);
    uint64_t end = std::min(blocks, first + piece.size() * 8);
    BatReader reader(image, first, end);
    for (BatReader::Run run; reader.Next(&run);) {
      for (uint64_t i = 0; i < run.values.size(); ++i) {
        uint64_t index = run.first + i;
        if (run.values[i] != kUnallocated || !BitAt(piece, index - first)) continue;
        Finding f = At(Problem::kVhdBatmapFullUnallocated, "batmap", batmap.offset + index / 8, 1);
        f.guest = GuestOf(image, index);
        f.layer = kActiveLayer;
        out->Add(std::move(f));
      }
    }
  }
  if (~sum != batmap.checksum) {
    out->Add(At(Problem::kVhdBatmapChecksum, "batmap", image.batmap_offset + batmap_at::kChecksum,
                4, fmt::format("stored {:#010x}, computed {:#010x}", batmap.checksum, ~sum)));
  }
  return Ok();
}

}  // namespace

Status JudgeBatmap(const Image& image, Findings* out) {
  const Footer& f = image.footer;
  bool expected = f.creator_app == kCreatorTap && f.creator_version >= kBatmapVersion;
  if (!image.batmap) {
    if (expected) {
      out->Add(At(Problem::kVhdBatmapMissing, "batmap", image.batmap_offset, kBatmapHeaderSize));
    }
    return Ok();
  }
  const BatmapHeader& batmap = *image.batmap;
  if (batmap.version > kBatmapVersion || batmap.version >> 16 != 1) {
    out->Add(At(Problem::kVhdBatmapVersion, "batmap", image.batmap_offset + batmap_at::kVersion, 4,
                Hex(batmap.version)));
  }
  if (batmap.key_flag != 0) {
    out->Add(
        At(Problem::kVhdBatmapEncrypted, "batmap", image.batmap_offset + batmap_at::kKeyFlag, 65));
  }
  if (!image.BatmapUsable()) {
    out->Add(At(Problem::kVhdBatmapRange, "batmap", image.batmap_offset + batmap_at::kOffset, 12,
                fmt::format("{} sectors at {}", batmap.sectors, Hex(batmap.offset))));
    return Ok();
  }
  return JudgeMap(image, out);
}

}  // namespace imgfsck::vhd
