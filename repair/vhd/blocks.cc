// SPDX-License-Identifier: Apache-2.0
// Blocks at impossible places. Blocks that share bytes with another or with metadata get a copy of
// their own of what they read now; one of the claimants stays. With -r all blocks that lie past the
// end are dropped and one that the end cuts is completed with zeros; both are listed as lost.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/vhd/bat.h"
#include "repair/vhd/claims.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kBlocksMended = {
    Problem::kVhdBatEntryInMetadata,    Problem::kVhdBatEntryPastEof,
    Problem::kVhdBatEntryTailTruncated, Problem::kVhdBatEntryOverlapsFooter,
    Problem::kVhdBatEntryDuplicate,     Problem::kVhdBatEntryOverlap,
    Problem::kVhdBatEntryBeyondSize};

bool BlocksWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->sparse() && WantedAny(report, options, kBlocksMended);
}

class BlockPass {
 public:
  explicit BlockPass(const PassContext& context)
      : editor_(context), image_(editor_.image()), blocks_(editor_.state().blocks) {}

  Result<PassOutcome> Run() {
    // Everything below rests on the table's being where it is thought to be.
    if (image_.header_state != SlotState::kSound || !editor_.FooterTrusted()) {
      outcome_.notes.push_back("blocks are looked at once header and footer are sound");
      return outcome_;
    }
    IMG_RETURN_IF_ERROR(EndBehindBlocks());
    IMG_RETURN_IF_ERROR(JudgeEntries());
    JudgeSharing();
    IMG_RETURN_IF_ERROR(CopyAll());
    return outcome_;
  }

 private:
  void Lose(GuestRange guest) {
    if (guest.length == 0) return;
    outcome_.changed.push_back(OfDisk(guest));
    outcome_.lost.push_back(OfDisk(guest));
  }

  // Rows 47 and 48: the file grows to the end of its last block, the footer moves there.
  Status EndBehindBlocks() {
    const bool cut = editor_.Asked(Problem::kVhdBatEntryTailTruncated);
    if (!cut && !editor_.Asked(Problem::kVhdBatEntryOverlapsFooter)) return Ok();
    uint64_t end = image_.DataEnd();
    for (const Block& block : blocks_) {
      uint64_t block_end = block.offset() + image_.BlockLength();
      if (block_end > image_.file_size && !cut) return Ok();  // first -r all has to settle that
      end = std::max(end, block_end);
      if (block_end > image_.file_size) LoseTail(block);
    }
    // What stands behind the footer may be a block that the table has lost.
    uint64_t behind = image_.DataEnd() + image_.trailing.length;
    if (image_.trailing.state != SlotState::kAbsent && behind < image_.file_size &&
        ClassifyContent(image_, MakeHostRange(behind, image_.file_size - behind)) >
            Content::kSuperseded) {
      end = std::max(end, image_.file_size);
    }
    IMG_RETURN_IF_ERROR(editor_.EndFileWith(image_.footer, AlignUp(end, kSectorSize)));
    ++outcome_.changes;
    return Ok();
  }

  void LoseTail(const Block& block) {
    GuestRange guest = GuestOf(image_, block.index);
    uint64_t data = block.offset() + image_.bitmap_bytes;
    uint64_t kept = std::min(image_.DataEnd() - std::min(image_.DataEnd(), data), guest.length);
    kept = AlignDown(kept, kSectorSize);
    Lose(MakeGuestRange(guest.offset.value + kept, guest.length - kept));
  }

  Status Unmap(uint64_t index) {
    Lose(GuestOf(image_, index));
    ++outcome_.changes;
    return editor_.WriteEntry(index, kUnallocated);
  }

  Status JudgeEntries() {
    const bool drop = editor_.Asked(Problem::kVhdBatEntryPastEof);
    const bool copy = editor_.Asked(Problem::kVhdBatEntryInMetadata);
    const bool wiped = AskedForWiped();
    const bool beyond = editor_.Asked(Problem::kVhdBatEntryBeyondSize);
    BatReader reader(image_, 0, image_.bat_entries);
    for (BatReader::Run run; reader.Next(&run);) {
      IMG_RETURN_IF_ERROR(CheckStop());
      if (run.zeros > 0 && wiped) IMG_RETURN_IF_ERROR(UnmapRun(run.first, run.zeros));
      for (uint64_t i = 0; i < run.values.size(); ++i) {
        uint64_t index = run.first + i, start = uint64_t{run.values[i]} * kSectorSize;
        if (run.values[i] == kUnallocated) continue;
        if ((start >= image_.file_size && drop) || (start == 0 && wiped) ||
            (index >= image_.BlocksNeeded() && beyond)) {
          IMG_RETURN_IF_ERROR(Unmap(index));
        } else if (start != 0 && copy && start < image_.file_size &&
                   !image_.ClearOfMetadata(start)) {
          movers_.push_back({run.values[i], static_cast<uint32_t>(index)});
        }
      }
    }
    return Ok();
  }

  bool AskedForWiped() const {
    for (const Finding* f : editor_.FindingsOf(Problem::kVhdBatEntryInMetadata)) {
      if (f->repair_or_default() == RepairClass::kAll) return true;
    }
    return false;
  }

  Status UnmapRun(uint64_t first, uint64_t count) {
    GuestRange begin = GuestOf(image_, first), end = GuestOf(image_, first + count - 1);
    Lose(MakeGuestRange(begin.offset.value, end.end() - begin.offset.value));
    ++outcome_.changes;
    return editor_.Fill(image_.bat_offset + first * 4, count * 4, 0xFF);
  }

  void JudgeSharing() {
    if (!editor_.AskedAny({Problem::kVhdBatEntryDuplicate, Problem::kVhdBatEntryOverlap})) return;
    for (const Loser& loser : JudgeClaims(image_, blocks_)) {
      if (loser.shares) Move(loser.block);
    }
  }
  void Move(const Block& block) {
    if (MayMove(block)) movers_.push_back(block);
  }

  // A copy of a block that the file's end cuts would pass missing bytes off as zeros.
  bool MayMove(const Block& block) const {
    return block.offset() + image_.BlockLength() <= image_.file_size ||
           editor_.Asked(Problem::kVhdBatEntryTailTruncated);
  }

  Status CopyAll() {
    if (movers_.empty()) return Ok();
    const uint64_t length = image_.BlockLength();
    const uint64_t bytes = SaturatingMul(movers_.size(), length);
    if (bytes > editor_.options().max_copy) {
      outcome_.notes.push_back(fmt::format(
          "{} blocks would each need a copy, {} bytes together: more than --max-copy allows",
          movers_.size(), bytes));
      return Ok();
    }
    outcome_.notes.push_back(fmt::format("{} blocks copied, {} bytes", movers_.size(), bytes));
    for (const Block& block : movers_) {
      IMG_ASSIGN_OR_RETURN(uint64_t to, editor_.Append(length));
      IMG_RETURN_IF_ERROR(editor_.CopyBlock(block.index, block.offset(), to));
      IMG_RETURN_IF_ERROR(editor_.WriteEntry(block.index, static_cast<uint32_t>(to / kSectorSize)));
      ++outcome_.changes;
    }
    return Ok();
  }

  Editor editor_;
  const Image& image_;
  const std::vector<Block>& blocks_;
  std::vector<Block> movers_;
  PassOutcome outcome_;
};

Result<PassOutcome> RunBlocks(const PassContext& context) { return BlockPass(context).Run(); }

}  // namespace

const Pass kBlockPass{"blocks", 30, "give every block a place of its own", BlocksWanted, RunBlocks};

}  // namespace imgfsck::vhd
