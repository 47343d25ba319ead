// SPDX-License-Identifier: Apache-2.0
// Blocks that no table entry names, and entries that name no block (-r all): put together where it
// is clear which belongs to which.
//
// An orphan is a row of blocks in a gap of the file (lost_blocks.h). A hole is an entry that is
// empty or impossible; what is impossible, or full by the batmap, has surely lost its block, so
// those come first. Evidence, strongest first: the blocks before and behind the gap are as far
// apart in the table as in the file; as many entries that lost a block as orphans; a single hole
// and a single orphan. Without evidence an orphan stays where it is, as a leak.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/vhd/bat.h"
#include "repair/vhd/claims.h"
#include "repair/vhd/lost_blocks.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr size_t kMostBad = 1 << 20;  // impossible entries remembered

bool OrphansWanted(const CheckReport& report, const RepairOptions& options) {
  bool all = options.mode == RepairMode::kAll;
  return all && options.orphans != OrphanPolicy::kFree && StateOf(report).image->sparse() &&
         (report.findings.Has(Problem::kVhdBatLeakedSpace) ||
          report.findings.Has(Problem::kVhdBatEntryOverlap));
}

struct Link {
  uint64_t offset = 0, index = 0;
  double confidence = 0;
};

class OrphanPass {
 public:
  explicit OrphanPass(const PassContext& context)
      : editor_(context),
        image_(editor_.image()),
        state_(editor_.state()),
        first_(context.first != nullptr ? *context.first : context.report) {}

  Result<PassOutcome> Run() {
    if (image_.header_state != SlotState::kSound || !editor_.FooterTrusted()) return outcome_;
    SetLosersAside();
    IMG_ASSIGN_OR_RETURN(orphans_, FindLostBlocks(image_, blocks_));
    if (orphans_.empty()) return outcome_;
    MeasureOrder();
    IMG_RETURN_IF_ERROR(FindHoles());
    for (const LostBlocks& orphan : orphans_) MatchByNeighbours(orphan, true);
    MatchByCount();
    for (const LostBlocks& orphan : orphans_) MatchByNeighbours(orphan, false);
    if (matches_.empty()) MatchOnlyHole();
    for (const Link& match : matches_) IMG_RETURN_IF_ERROR(Relink(match));
    for (const LostBlocks& orphan : orphans_) outcome_.orphans.kept += orphan.blocks;
    outcome_.orphans.kept -= std::min(outcome_.orphans.kept, outcome_.orphans.relinked);
    return outcome_;
  }

 private:
  void SetLosersAside() {
    std::vector<Block> losers;
    for (const Loser& loser : JudgeClaims(image_, state_.blocks)) {
      unsure_ = unsure_ || !loser.surely;
      if (!loser.surely) continue;
      losers.push_back(loser.block);
      wrong_.push_back(loser.block.index);
    }
    std::ranges::sort(losers);
    std::ranges::sort(wrong_);
    std::ranges::set_difference(state_.blocks, losers, std::back_inserter(blocks_));
  }

  bool Impossible(uint32_t sector) const {
    uint64_t start = uint64_t{sector} * kSectorSize;
    return sector != kUnallocated && (start >= image_.file_size || !image_.ClearOfMetadata(start));
  }

  bool FullByBatmap(uint64_t index) {
    if (!image_.BatmapUsable() || index / 8 >= image_.BatmapBytes()) return false;
    uint64_t piece = index / 8 / kSectorSize * kSectorSize;
    if (map_.empty() || piece != map_piece_) {
      map_.resize(kSectorSize);
      if (!ReadPadded(*image_.source, image_.batmap->offset + piece, map_)) map_.assign(512, 0);
      map_piece_ = piece;
    }
    return BitAt(map_, index - piece * 8);
  }

  Status FindHoles() {
    BatReader reader(image_, 0, std::min(image_.bat_entries, image_.BlocksNeeded()));
    for (BatReader::Run run; reader.Next(&run);) {
      IMG_RETURN_IF_ERROR(CheckStop());
      for (uint64_t i = 0; i < run.zeros && bad_.size() < kMostBad; ++i) AddBad(run.first + i);
      for (uint64_t i = 0; i < run.values.size(); ++i) {
        if (run.values[i] == kUnallocated && FullByBatmap(run.first + i)) {
          AddBad(run.first + i);
        } else if (run.values[i] == kUnallocated) {
          ++empty_;
          last_empty_ = run.first + i;
        } else if (Impossible(run.values[i]) || std::ranges::binary_search(wrong_, run.first + i)) {
          AddBad(run.first + i);
        }
      }
    }
    return Ok();
  }
  void AddBad(uint64_t index) {
    if (bad_.size() < kMostBad) bad_.push_back(index);
  }

  bool IsHole(uint64_t index) const {
    auto entry = BatEntryAt(*image_.source, image_, index);
    return entry && index < image_.BlocksNeeded() && (*entry == kUnallocated || Impossible(*entry));
  }
  bool AllHoles(uint64_t first, uint64_t count) const {
    for (uint64_t i = 0; i < count; ++i) {
      if (!IsHole(first + i)) return false;
    }
    return true;
  }
  bool AllBad(uint64_t first, uint64_t count) const {
    auto at = std::ranges::lower_bound(bad_, first);
    return static_cast<uint64_t>(bad_.end() - at) >= count && *at == first &&
           at[static_cast<ptrdiff_t>(count) - 1] == first + count - 1;
  }

  // The stored block that begins at `offset`; kNone when there is none.
  static constexpr uint64_t kNone = UINT64_MAX;
  uint64_t IndexAt(uint64_t offset) const {
    auto at = std::ranges::lower_bound(blocks_, offset, {}, &Block::offset);
    return at == blocks_.end() || at->offset() != offset ? kNone : at->index;
  }

  // How often the next block in the file is the next of the disk.
  void MeasureOrder() {
    double pairs = 0, in_order = 0;
    for (size_t i = 1; i < blocks_.size(); ++i) {
      const Block &a = blocks_[i - 1], &b = blocks_[i];
      if (b.offset() != a.offset() + image_.BlockLength()) continue;
      ++pairs;
      in_order += b.index == a.index + 1;
    }
    sequential_ = pairs < 2 ? 0 : in_order / pairs;
  }

  // `sure`: only entries that have surely lost a block.
  void MatchByNeighbours(const LostBlocks& orphan, bool sure) {
    uint64_t count = orphan.blocks;
    uint64_t before =
        orphan.offset >= orphan.stride ? IndexAt(orphan.offset - orphan.stride) : kNone;
    uint64_t behind = IndexAt(orphan.offset + count * orphan.stride);
    const bool ordered = sequential_ >= kMostlySequential;
    const bool between = before != kNone && behind == before + count + 1;
    if (sure) {
      if (between && AllBad(before + 1, count)) {
        Assign(orphan, before + 1, 0.97);
      } else if (ordered && before != kNone && AllBad(before + 1, count)) {
        Assign(orphan, before + 1, 0.85);
      } else if (ordered && behind != kNone && behind >= count && AllBad(behind - count, count)) {
        Assign(orphan, behind - count, 0.85);
      }
      return;
    }
    // In a disk whose blocks lie in no order, neighbours are neighbours by chance now and then.
    double by_chance = 2 / static_cast<double>(blocks_.size() + 1);
    double confidence = ordered ? 0.95 : 1 - by_chance;
    if (between && bad_left_ == 0 && AllHoles(before + 1, count) &&
        confidence >= kLeastConfidence) {
      Assign(orphan, before + 1, confidence);
    }
  }

  // As many entries without their blocks as blocks without their entries. More than one only where
  // blocks lie in the disk's order.
  void MatchByCount() {
    std::vector<uint64_t> entries;
    for (uint64_t index : bad_) {
      if (!Taken(index)) entries.push_back(index);
    }
    uint64_t blocks = 0;
    std::vector<const LostBlocks*> left;
    for (const LostBlocks& orphan : orphans_) {
      if (matched_.contains(orphan.offset)) continue;
      left.push_back(&orphan);
      blocks += orphan.blocks;
    }
    bad_left_ = entries.size();
    bool ordered = sequential_ >= kMostlySequential || blocks_.empty();
    if (blocks == 0 || entries.size() != blocks || (blocks > 1 && !ordered)) return;
    size_t next = 0;
    for (const LostBlocks* orphan : left) {
      for (uint64_t i = 0; i < orphan->blocks; ++i) {
        Match(orphan->offset + i * orphan->stride, entries[next++], blocks == 1 ? 0.9 : 0.7);
      }
    }
    bad_left_ = 0;
  }

  // Only where nothing else is wrong with the table: a damaged entry may have lost that block, too.
  void MatchOnlyHole() {
    if (bad_left_ == 0 && !unsure_ && !TableWasDamaged() && empty_ == 1 && orphans_.size() == 1 &&
        orphans_.front().blocks == 1) {
      Assign(orphans_.front(), last_empty_, 0.9);
    }
  }

  bool TableWasDamaged() const {
    for (Problem problem : {Problem::kVhdBatEntryInMetadata, Problem::kVhdBatEntryPastEof,
                            Problem::kVhdBatEntryTailTruncated, Problem::kVhdBatEntryOverlapsFooter,
                            Problem::kVhdBatEntryDuplicate, Problem::kVhdBatEntryOverlap}) {
      if (first_.findings.Has(problem)) return true;
    }
    return false;
  }

  bool Taken(uint64_t index) const { return taken_.contains(index); }

  void Assign(const LostBlocks& orphan, uint64_t first, double confidence) {
    if (matched_.contains(orphan.offset)) return;
    for (uint64_t i = 0; i < orphan.blocks; ++i) {
      if (Taken(first + i)) return;
    }
    for (uint64_t i = 0; i < orphan.blocks; ++i) {
      Match(orphan.offset + i * orphan.stride, first + i, confidence);
    }
  }
  void Match(uint64_t offset, uint64_t index, double confidence) {
    matches_.push_back({offset, index, confidence});
    matched_.insert(offset);
    taken_.insert(index);
  }

  Status Relink(const Link& match) {
    IMG_RETURN_IF_ERROR(
        editor_.WriteEntry(match.index, static_cast<uint32_t>(match.offset / kSectorSize)));
    GuestRange guest = GuestOf(image_, match.index);
    if (guest.length > 0) outcome_.changed.push_back(OfDisk(guest));
    if (outcome_.particulars.size() < 20) {
      outcome_.particulars.push_back(
          fmt::format("the block at {:#x} is block {} of the disk again "
                      "(confidence {:.2f})",
                      match.offset, match.index, match.confidence));
    }
    ++outcome_.orphans.relinked;
    ++outcome_.changes;
    return Ok();
  }

  Editor editor_;
  const Image& image_;
  const CheckState& state_;
  const CheckReport& first_;  // before any pass
  PassOutcome outcome_;
  std::vector<Block> blocks_;    // that lie where they should, ascending
  std::vector<uint64_t> wrong_;  // entries that surely name another's place, ascending
  bool unsure_ = false;          // of blocks that share bytes nothing says which is right
  std::vector<LostBlocks> orphans_;
  std::vector<uint64_t> bad_;  // entries that have surely lost a block, ascending
  uint64_t bad_left_ = 0;      // of those, without a match
  uint64_t empty_ = 0, last_empty_ = 0;
  ByteVector map_;  // a sector of the batmap
  uint64_t map_piece_ = 0;
  static constexpr double kMostlySequential = 0.7, kLeastConfidence = 0.85;
  double sequential_ = 0;  // share of blocks that lie in the disk's order
  std::vector<Link> matches_;
  std::unordered_set<uint64_t> matched_, taken_;  // offsets and entries of matches_
};

Result<PassOutcome> RunOrphans(const PassContext& context) { return OrphanPass(context).Run(); }

}  // namespace

const Pass kOrphanPass{"orphans", 28, "link blocks again that the block table has lost",
                       OrphansWanted, RunOrphans};

}  // namespace imgfsck::vhd
