// SPDX-License-Identifier: Apache-2.0
// The block table as a whole: one that is too short for the disk, one that the file's end cuts off.
//
// A short table grows where it stands. Blocks in its way move to the end of the file; the table
// then takes all the room up to the next block (spare entries are legal), so that nothing leaks.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

bool TableWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->sparse() &&
         WantedAny(report, options, {Problem::kVhdDynMaxEntriesSmall, Problem::kVhdBatTruncated});
}

uint64_t TableBytes(uint64_t entries) { return AlignUp(entries * 4, kSectorSize); }

// A table that is small beside the file, or that any disk of the format could need. Sizes that lie
// must not make the file grow to what they claim.
bool MayAdd(const Image& image, uint64_t bytes, PassOutcome* outcome) {
  constexpr uint64_t kAlways = uint64_t{64}
                               << 20;  // 16 times the table of 2040 GiB in 2 MiB blocks
  if (bytes <= std::max(kAlways, image.file_size)) return true;
  outcome->notes.push_back(fmt::format(
      "the block table was not enlarged by {} bytes: the sizes that ask for it are not believable",
      bytes));
  return false;
}

struct Room {
  uint64_t needed_end = 0;  // of table and batmap
  uint64_t end = 0;         // of what they may take
  std::vector<Block> blocks_in_the_way;
  std::vector<size_t> locators_in_the_way;
};

Room MeasureRoom(const Editor& editor, const DynHeader& header, uint64_t needed_end) {
  const Image& image = editor.image();
  Room room{needed_end, std::max(needed_end, image.DataEnd()), {}, {}};
  auto place = [&](uint64_t offset, uint64_t length) {
    bool in_the_way = offset < needed_end && offset + length > image.bat_offset;
    if (!in_the_way && offset >= needed_end) room.end = std::min(room.end, offset);
    return in_the_way;
  };
  for (const Block& block : editor.state().blocks) {
    if (place(block.offset(), image.BlockLength())) room.blocks_in_the_way.push_back(block);
  }
  for (size_t i = 0; i < kLocatorCount; ++i) {
    const Locator& l = header.locators[i];
    if (l.code == kLocatorNone) continue;
    uint64_t length = std::max<uint64_t>(l.SpaceBytes().value_or(0), l.data_length);
    if (place(l.data_offset, length)) room.locators_in_the_way.push_back(i);
  }
  return room;
}

Status MoveAside(Editor* editor, const Room& room, DynHeader* header) {
  const Image& image = editor->image();
  for (const Block& block : room.blocks_in_the_way) {
    IMG_ASSIGN_OR_RETURN(uint64_t to, editor->Append(image.BlockLength()));
    IMG_RETURN_IF_ERROR(editor->Copy(block.offset(), to, image.BlockLength()));
    IMG_RETURN_IF_ERROR(editor->WriteEntry(block.index, static_cast<uint32_t>(to / kSectorSize)));
  }
  for (size_t i : room.locators_in_the_way) {
    Locator& l = header->locators[i];
    uint64_t length = AlignUp(std::max<uint64_t>(l.data_length, 1), kSectorSize);
    IMG_ASSIGN_OR_RETURN(uint64_t to, editor->Append(length));
    IMG_RETURN_IF_ERROR(editor->Copy(l.data_offset, to, l.data_length));
    l.data_offset = to;
    l.data_space = static_cast<uint32_t>(length);
  }
  return Ok();
}

// The batmap belongs behind the table: `at` is where its header goes, the map right after it.
Status PutBatmap(Editor* editor, uint64_t at, uint64_t map_bytes) {
  const Image& image = editor->image();
  BatmapHeader batmap = *image.batmap;
  ByteVector map(map_bytes);
  uint64_t kept = image.BatmapUsable() ? std::min(image.BatmapBytes(), map_bytes) : 0;
  IMG_RETURN_IF_ERROR(ReadPadded(*image.source, batmap.offset, MutableBytes(map).first(kept)));
  batmap.offset = at + kBatmapHeaderSize;
  batmap.sectors = static_cast<uint32_t>(map_bytes / kSectorSize);
  uint64_t covered = AlignUp(DivRoundUp(image.BlocksNeeded(), 8), kSectorSize);
  batmap.checksum = MapChecksum(Bytes(map).first(std::min(covered, map_bytes)), batmap.version);
  IMG_RETURN_IF_ERROR(editor->Write(at, Seal(&batmap)));
  return editor->Write(batmap.offset, map);
}

// The file ends within the table: what is missing reads as "not stored".
Status CompleteTable(Editor* editor, PassOutcome* outcome) {
  const Image& image = editor->image();
  uint64_t have = image.bat_offset + image.bat_stored * 4;
  uint64_t end = image.bat_offset + image.BatBytes();
  if (!MayAdd(image, end - have, outcome)) return Ok();
  IMG_RETURN_IF_ERROR(editor->Fill(have, end - have, 0xFF));
  if (image.trailing.state != SlotState::kAbsent || editor->FooterTrusted()) {
    IMG_RETURN_IF_ERROR(editor->EndFileWith(image.footer, end));
  }
  uint64_t from = SaturatingMul(image.bat_stored, image.block_size), size = image.VirtualSize();
  if (from < size) outcome->lost.push_back(OfDisk(MakeGuestRange(from, size - from)));
  ++outcome->changes;
  return Ok();
}

Result<PassOutcome> RunTable(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  PassOutcome outcome;
  // What the header claims must be the header's, not damage: the file would grow to any size.
  if (image.header_state != SlotState::kSound) return outcome;
  if (editor.Asked(Problem::kVhdBatTruncated)) {
    if (image.bat_entries > image.BlocksNeeded() + 1) {
      outcome.notes.push_back(
          "the block table was not completed: it claims more entries than the "
          "disk needs");
      return outcome;
    }
    IMG_RETURN_IF_ERROR(CompleteTable(&editor, &outcome));
    return outcome;
  }
  DynHeader header = image.header;
  IMG_RETURN_IF_ERROR(GrowTable(&editor, image.BlocksNeeded(), &header, &outcome));
  if (outcome.changes > 0) IMG_RETURN_IF_ERROR(editor.WriteHeader(header));
  return outcome;
}

}  // namespace

Status GrowTable(Editor* editor, uint64_t entries, DynHeader* header, PassOutcome* outcome) {
  const Image& image = editor->image();
  if (!editor->state().table_sound || !editor->FooterTrusted()) {
    outcome->notes.push_back("the block table cannot grow before the rest of it is sound");
    return Ok();
  }
  if (entries > UINT32_MAX || image.header_offset > image.bat_offset) {
    outcome->notes.push_back("the block table cannot grow where it is");
    return Ok();
  }
  if (!MayAdd(image, TableBytes(entries), outcome)) return Ok();
  uint64_t extra = 0;
  if (image.batmap) {
    extra = kBatmapHeaderSize +
            std::max(image.BatmapBytes(), AlignUp(DivRoundUp(entries, 8), kSectorSize));
  }
  Room room = MeasureRoom(*editor, *header, image.bat_offset + TableBytes(entries) + extra);
  uint64_t copied = room.blocks_in_the_way.size() * image.BlockLength();
  if (copied > editor->options().max_copy) {
    outcome->notes.push_back(
        fmt::format("the block table was not enlarged: {} bytes would have to move", copied));
    return Ok();
  }
  // A block that the table has lost may stand in the way, too.
  auto holds_data = [&](uint64_t end) {
    uint64_t begin = image.bat_offset + image.BatBytes();
    return std::ranges::any_of(editor->state().gaps, [&](const Gap& gap) {
      uint64_t from = std::max(begin, gap.host.offset.value), to = std::min(end, gap.host.end());
      return from < to && ClassifyContent(image, MakeHostRange(from, to - from)) > Content::kFiller;
    });
  };
  if (holds_data(room.needed_end)) {
    outcome->notes.push_back("the block table cannot grow: unknown data stands behind it");
    return Ok();
  }
  if (holds_data(room.end)) room.end = room.needed_end;
  if (room.needed_end > image.DataEnd()) {
    IMG_RETURN_IF_ERROR(editor->EndFileWith(image.footer, room.needed_end));
  }
  IMG_RETURN_IF_ERROR(MoveAside(editor, room, header));
  const uint64_t table_end = room.end - extra;
  uint64_t old_end = image.bat_offset + image.bat_entries * 4;
  IMG_RETURN_IF_ERROR(editor->Fill(old_end, table_end - old_end, 0xFF));
  if (image.batmap) {
    IMG_RETURN_IF_ERROR(PutBatmap(editor, table_end, extra - kBatmapHeaderSize));
  }
  uint64_t now = std::min<uint64_t>((table_end - image.bat_offset) / 4, UINT32_MAX);
  header->max_entries = static_cast<uint32_t>(now);
  ++outcome->changes;
  return Ok();
}

const Pass kTablePass{"block-table", 25, "make the block table as long as the disk needs",
                      TableWanted, RunTable};

}  // namespace imgfsck::vhd
