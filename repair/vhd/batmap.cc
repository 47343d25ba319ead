// SPDX-License-Identifier: Apache-2.0
// XenServer's map of full blocks: rebuilt from the sector bitmaps, in its place, or behind its
// header, or at the end of the file.
#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/mapping.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kBatmapMended = {
    Problem::kVhdBatmapMissing,         Problem::kVhdBatmapVersion,
    Problem::kVhdBatmapRange,           Problem::kVhdBatmapChecksum,
    Problem::kVhdBatmapFullUnallocated, Problem::kVhdBatmapFullBitmapPartial};

// Something else claims bytes of the map.
bool MapIsShared(const Image& image) {
  if (!image.BatmapUsable()) return false;
  uint64_t begin = image.batmap->offset, end = begin + image.BatmapBytes();
  return std::ranges::count_if(image.regions, [&](const MetaRegion& r) {
           return r.offset < end && begin < r.end();
         }) > 1;
}

bool BatmapWanted(const CheckReport& report, const RepairOptions& options) {
  const Image& image = *StateOf(report).image;
  if (!image.sparse()) return false;
  return WantedAny(report, options, kBatmapMended) ||
         (MapIsShared(image) && WantedAny(report, options, {Problem::kVhdDynMetadataOverlap}));
}

// One bit a block that is stored and whose sectors were all written.
Result<ByteVector> MapOfFullBlocks(Editor* editor, uint64_t bytes) {
  const Image& image = editor->image();
  ByteVector map(bytes), bitmap(image.bitmap_bytes);
  for (const Block& block : editor->state().blocks) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t sectors = GuestOf(image, block.index).length / kSectorSize;
    if (block.index / 8 >= bytes || sectors == 0 || bitmap.empty()) continue;
    IMG_RETURN_IF_ERROR(ReadPadded(editor->overlay(), block.offset(), bitmap));
    bool full = BitAt(bitmap, 0) && BitRunEnd(bitmap, 0, sectors) == sectors;
    SetBit(map, block.index, full);
  }
  return map;
}

// Claimed by nothing, and with no room for a block that the table may have lost, or nothing in it.
bool IsFree(const Editor& editor, uint64_t offset, uint64_t length) {
  const Image& image = editor.image();
  if (!RangeFits(offset, length, image.DataEnd())) return false;
  uint64_t gap_end = image.DataEnd();
  for (const MetaRegion& r : image.regions) {
    if (r.kind == "batmap" || r.end() <= offset) continue;
    if (r.offset < offset + length) return false;
    gap_end = std::min(gap_end, r.offset);
  }
  for (const Block& b : editor.state().blocks) {
    if (b.offset() + image.BlockLength() <= offset) continue;
    if (b.offset() < offset + length) return false;
    gap_end = std::min(gap_end, b.offset());
  }
  return gap_end - offset < image.BlockLength() ||
         ClassifyContent(image, MakeHostRange(offset, length)) <= Content::kFiller;
}

// Right behind its header, as everybody writes it, or a map that its checksum vouches for.
bool PlaceOfMapTrusted(const Image& image, uint64_t covered) {
  if (image.batmap->offset == image.batmap_offset + kBatmapHeaderSize) return true;
  ByteVector map(std::min(covered, image.BatmapBytes()));
  return ReadPadded(*image.source, image.batmap->offset, map) &&
         MapChecksum(map, image.batmap->version) == image.batmap->checksum;
}

Result<PassOutcome> RunBatmap(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  PassOutcome outcome;
  if (!editor.state().table_sound) {
    outcome.notes.push_back("the batmap is rebuilt once the block table is sound");
    return outcome;
  }
  uint64_t covered = AlignUp(DivRoundUp(image.BlocksNeeded(), 8), kSectorSize);
  uint64_t bytes = image.BatmapUsable() ? image.BatmapBytes() : covered;
  BatmapHeader header = image.batmap.value_or(BatmapHeader{});
  bool place_of_header_free =
      image.batmap.has_value() || IsFree(editor, image.batmap_offset, kBatmapHeaderSize + bytes);
  if (!place_of_header_free) {
    outcome.notes.push_back("the batmap cannot be rebuilt: blocks stand in its place");
    return outcome;
  }
  IMG_ASSIGN_OR_RETURN(ByteVector map, MapOfFullBlocks(&editor, bytes));
  if (!image.BatmapUsable() || MapIsShared(image) || !PlaceOfMapTrusted(image, covered)) {
    header.offset = image.batmap_offset + kBatmapHeaderSize;
    header.sectors = static_cast<uint32_t>(bytes / kSectorSize);
    if (!IsFree(editor, header.offset, bytes)) {
      IMG_ASSIGN_OR_RETURN(header.offset, editor.Append(bytes));
    }
  }
  if (header.version == 0 || header.version > kBatmapVersion) header.version = kBatmapVersion;
  uint32_t stored = header.checksum;
  header.checksum = MapChecksum(Bytes(map).first(std::min(covered, bytes)), header.version);
  if (image.BatmapUsable() && stored == header.checksum) {
    // The map was hit, and neither the table nor the bitmaps that it speaks of.
    editor.Settle(Problem::kVhdBatmapFullUnallocated, &outcome);
    editor.Settle(Problem::kVhdBatmapFullBitmapPartial, &outcome);
  }
  IMG_RETURN_IF_ERROR(editor.Write(header.offset, map));
  IMG_RETURN_IF_ERROR(editor.Write(image.batmap_offset, Seal(&header)));
  outcome.changes = 1;
  return outcome;
}

}  // namespace

const Pass kBatmapPass{"batmap", 50, "rebuild the map of full blocks", BatmapWanted, RunBatmap};

}  // namespace imgfsck::vhd
