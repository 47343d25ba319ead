// SPDX-License-Identifier: Apache-2.0
// Rows 44 to 51 and 54: every entry of the block table, then all blocks in file order. Passes over
// the table and over the blocks: time linear in the table, 16 bytes for each block that lies in the
// file while they are put in order, 8 afterwards.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "formats/vhd/bat.h"

namespace imgfsck::vhd {

GuestRange GuestOf(const Image& image, uint64_t index) {
  uint64_t begin = SaturatingMul(index, image.block_size), size = image.VirtualSize();
  if (begin >= size) return MakeGuestRange(size, 0);
  return MakeGuestRange(begin, std::min(image.block_size, size - begin));
}

int NeighbourFit(const Image& image, const Block& block) {
  uint64_t sectors = image.BlockLength() / kSectorSize;
  int fit = 0;
  for (int step : {-1, 1}) {
    if (step < 0 && block.index == 0) continue;
    auto near = BatEntryAt(*image.source, image, block.index + static_cast<uint64_t>(step));
    fit += near && *near == block.sector + static_cast<uint64_t>(step) * sectors;
  }
  return fit;
}

namespace {

// Ascending by sector, then by index: they come by index, and equal ones keep their order.
void SortBySector(std::vector<Block>* blocks) {
  constexpr int kDigit = 11;  // bits looked at in one pass
  constexpr uint32_t kValues = 1 << kDigit;
  std::vector<Block> sorted(blocks->size());
  for (int shift = 0; shift < 32; shift += kDigit) {
    auto digit = [&](const Block& block) { return block.sector >> shift & (kValues - 1); };
    std::vector<size_t> next(kValues + 1);
    for (const Block& block : *blocks) ++next[digit(block) + 1];
    for (size_t value = 1; value <= kValues; ++value) next[value] += next[value - 1];
    for (const Block& block : *blocks) sorted[next[digit(block)]++] = block;
    blocks->swap(sorted);
  }
}

class TableWalk {
 public:
  TableWalk(const CheckOptions& options, CheckState* state, CheckReport* report)
      : options_(options),
        state_(state),
        report_(report),
        image_(*state->image),
        out_(&report->findings),
        needed_(image_.BlocksNeeded()) {}

  Status Run() {
    BatReader reader(image_, 0, image_.bat_entries);
    for (BatReader::Run run; reader.Next(&run);) {
      IMG_RETURN_IF_ERROR(CheckStop());
      if (options_.progress) options_.progress("block table", run.first, image_.bat_entries);
      if (run.zeros > 0) JudgeZeros(run.first, run.zeros);
      for (uint64_t i = 0; i < run.values.size(); ++i) {
        if (run.values[i] != kUnallocated) {
          JudgeEntry(run.first + i, run.values[i]);
        }
        previous_ = run.values[i];
      }
    }
    for (const HostRange& bad : reader.unreadable()) {
      out_->Add(At(Problem::kImageUnreadable, "bat", bad.offset.value, bad.length));
      ++report_->counts.check_errors;
    }
    SortBySector(&state_->blocks);
    JudgeOverlaps();
    JudgeAlignment();
    Conclude();
    return Ok();
  }

 private:
  Finding EntryFinding(Problem problem, uint64_t index, uint64_t count, std::string detail) const {
    Finding f = At(problem, "bat", image_.bat_offset + index * 4, count * 4, std::move(detail));
    GuestRange first = GuestOf(image_, index), last = GuestOf(image_, index + count - 1);
    if (first.length > 0) {
      f.guest = MakeGuestRange(first.offset.value, last.end() - first.offset.value);
      f.layer = kActiveLayer;
    }
    f.count = count;
    return f;
  }

  void Add(Problem problem, uint64_t index, std::string detail = {}) {
    if (!out_->WouldKeep(problem)) {
      out_->AddBare(problem, 1);
      return;
    }
    out_->Add(EntryFinding(problem, index, 1, std::move(detail)));
  }

  // A hole in the table: entries that name the footer copy.
  void JudgeZeros(uint64_t first, uint64_t count) {
    Finding f = EntryFinding(Problem::kVhdBatEntryInMetadata, first, count, "in footer-copy");
    f.repair = RepairClass::kAll;
    f.also.push_back({"", std::nullopt, "footer-copy"});
    report_->counts.allocated_clusters += first < needed_ ? std::min(count, needed_ - first) : 0;
    out_->Add(std::move(f));
  }

  const MetaRegion* MetadataUnder(uint64_t start) const {
    for (const MetaRegion& region : image_.regions) {
      if (start < region.end() && region.offset < start + image_.BlockLength()) return &region;
    }
    return nullptr;
  }

  void JudgeEntry(uint64_t index, uint32_t sector) {
    uint64_t start = uint64_t{sector} * kSectorSize, end = start + image_.BlockLength();
    if (index >= needed_) {
      Add(Problem::kVhdBatEntryBeyondSize, index);
    } else {
      ++report_->counts.allocated_clusters;
      uint64_t next = uint64_t{previous_} + image_.BlockLength() / kSectorSize;
      if (previous_ != kUnallocated && index > 0 && next != sector) {
        ++report_->counts.fragmented_clusters;
      }
    }
    if (start >= image_.file_size) {
      Add(Problem::kVhdBatEntryPastEof, index);
      return;
    }
    if (const MetaRegion* region = MetadataUnder(start)) {
      Finding f = EntryFinding(Problem::kVhdBatEntryInMetadata, index, 1, "in " + region->name);
      f.also.push_back({"", std::nullopt, region->name});
      // No program ever puts a block there: an entry that was wiped, with nothing worth a copy.
      if (sector == 0) f.repair = RepairClass::kAll;
      out_->Add(std::move(f));
      return;
    }
    state_->blocks.push_back({sector, static_cast<uint32_t>(index)});
    if (end > image_.file_size) {
      JudgeCut(index, start);
    } else if (end > image_.DataEnd()) {
      JudgeUnderFooter(index, start);
    }
    state_->end_of_data = std::max(state_->end_of_data, std::min(end, image_.file_size));
  }

  void JudgeCut(uint64_t index, uint64_t start) {
    Finding f = EntryFinding(Problem::kVhdBatEntryTailTruncated, index, 1, "");
    uint64_t there = std::min(image_.DataEnd(), image_.file_size);
    there -= std::min(there, start + image_.bitmap_bytes);
    GuestRange guest = GuestOf(image_, index);
    uint64_t kept = AlignDown(std::min(there, guest.length), kSectorSize);
    if (kept < guest.length) {
      f.guest = MakeGuestRange(guest.offset.value + kept, guest.length - kept);
    }
    f.detail = fmt::format("{} of {} bytes of the block are in the file", image_.file_size - start,
                           image_.BlockLength());
    out_->Add(std::move(f));
  }

  void JudgeUnderFooter(uint64_t index, uint64_t start) {
    Finding f = EntryFinding(Problem::kVhdBatEntryOverlapsFooter, index, 1, "");
    uint64_t before = image_.DataEnd() - std::min(image_.DataEnd(), start + image_.bitmap_bytes);
    GuestRange guest = GuestOf(image_, index);
    if (before < guest.length) {
      f.guest = MakeGuestRange(guest.offset.value + before, guest.length - before);
    }
    f.also.push_back({"", std::nullopt, "footer"});
    out_->Add(std::move(f));
  }

  void AddConflict(Problem problem, const Block& block, const Block& other) {
    if (!out_->WouldKeep(problem)) {
      out_->AddBare(problem, 1);
      return;
    }
    Finding f = EntryFinding(problem, block.index, 1, "");
    f.host = MakeHostRange(block.offset(), image_.BlockLength());
    uint64_t shared = other.offset() + image_.BlockLength() - block.offset();
    if (problem == Problem::kVhdBatEntryOverlap) f.detail = HumanSize(shared) + " are shared";
    Claimant claimant{std::string(kActiveLayer), std::nullopt, fmt::format("bat[{}]", other.index)};
    if (GuestRange guest = GuestOf(image_, other.index); guest.length > 0) claimant.guest = guest;
    f.also.push_back(std::move(claimant));
    int mine = NeighbourFit(image_, block), theirs = NeighbourFit(image_, other);
    if (mine != theirs) {
      f.evidence = fmt::format("block {} lies next to its neighbours, block {} does not",
                               mine > theirs ? block.index : other.index,
                               mine > theirs ? other.index : block.index);
    }
    out_->Add(std::move(f));
  }

  // Blocks come in file order: each is compared with the one that reaches furthest so far.
  void JudgeOverlaps() {
    const Block* furthest = nullptr;
    for (const Block& block : state_->blocks) {
      if (furthest != nullptr && block.sector == furthest->sector) {
        AddConflict(Problem::kVhdBatEntryDuplicate, block, *furthest);
      } else if (furthest != nullptr &&
                 block.offset() < furthest->offset() + image_.BlockLength()) {
        AddConflict(Problem::kVhdBatEntryOverlap, block, *furthest);
      }
      // All blocks are of one length, so the last start reaches furthest.
      if (furthest == nullptr || block.sector != furthest->sector) furthest = &block;
    }
  }

  void JudgeAlignment() {
    auto off = std::ranges::count_if(state_->blocks, [&](const Block& block) {
      return (block.offset() + image_.bitmap_bytes) % 4096 != 0;
    });
    if (off == 0) return;
    Finding f;
    f.problem = Problem::kVhdBatNot4kAligned;
    f.structure = "bat";
    f.count = static_cast<uint64_t>(off);
    f.detail = fmt::format("{} of {} blocks", off, state_->blocks.size());
    out_->Add(std::move(f));
  }

  void Conclude() {
    state_->table_usable = true;
    state_->table_sound = std::ranges::none_of(
        std::initializer_list<Problem>{
            Problem::kVhdBatOffset, Problem::kVhdBatTruncated, Problem::kVhdBatEntryInMetadata,
            Problem::kVhdBatEntryPastEof, Problem::kVhdBatEntryTailTruncated,
            Problem::kVhdBatEntryOverlapsFooter, Problem::kVhdBatEntryDuplicate,
            Problem::kVhdBatEntryOverlap, Problem::kVhdDynHeaderCookie,
            Problem::kVhdDynHeaderChecksum, Problem::kVhdDynBlockSize},
        [&](Problem problem) {
          return out_->Has(problem) && (problem != Problem::kVhdDynBlockSize ||
                                        image_.stored_header.block_size != image_.block_size);
        });
  }

  const CheckOptions& options_;
  CheckState* state_;
  CheckReport* report_;
  const Image& image_;
  Findings* out_;
  uint64_t needed_;
  uint32_t previous_ = kUnallocated;
};

}  // namespace

Status WalkTable(const CheckOptions& options, CheckState* state, CheckReport* report) {
  return TableWalk(options, state, report).Run();
}

}  // namespace imgfsck::vhd
