// SPDX-License-Identifier: Apache-2.0
// Blocks that no table entry names, and entries that name no block (-r all): put together where it
// is clear which belongs to which.
//
// An orphan is a gap in the file exactly as long as whole blocks, holding data. A hole is an entry
// that is empty or impossible. Evidence, strongest first: the blocks before and behind the gap are
// as far apart in the table as in the file; a row of impossible entries just as long as the only
// gap; a single hole and a single orphan. Without it an orphan stays where it is, as a leak.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/vhd/bat.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr size_t kMostBad = 1 << 20;  // impossible entries remembered

bool Wanted(const CheckReport& report, const RepairOptions& options) {
  bool all = options.mode == RepairMode::kAll;
  return all && options.orphans != OrphanPolicy::kFree && StateOf(report).image->sparse() &&
         report.findings.Has(Problem::kVhdBatLeakedSpace);
}

struct Orphan {
  uint64_t offset = 0, blocks = 0;
};
struct Match {
  uint64_t offset = 0, index = 0;
  double confidence = 0;
};

class OrphanPass {
 public:
  explicit OrphanPass(const PassContext& context)
      : editor_(context), image_(editor_.image()), state_(editor_.state()) {}

  Result<PassOutcome> Run() {
    if (image_.header_state != SlotState::kSound || !editor_.FooterTrusted()) return outcome_;
    IMG_RETURN_IF_ERROR(FindOrphans());
    if (orphans_.empty()) return outcome_;
    IMG_RETURN_IF_ERROR(FindHoles());
    for (const Orphan& orphan : orphans_) MatchByNeighbours(orphan);
    if (matches_.empty()) MatchByCount();
    for (const Match& match : matches_) IMG_RETURN_IF_ERROR(Relink(match));
    for (const Orphan& orphan : orphans_) outcome_.orphans.kept += orphan.blocks;
    outcome_.orphans.kept -= std::min(outcome_.orphans.kept, outcome_.orphans.relinked);
    return outcome_;
  }

 private:
  Status FindOrphans() {
    for (const Gap& gap : state_.gaps) {
      IMG_RETURN_IF_ERROR(CheckStop());
      uint64_t length = image_.BlockLength();
      if (gap.host.length < length || gap.host.length % length != 0) continue;
      if (ClassifyContent(image_, gap.host) != Content::kData) continue;
      orphans_.push_back({gap.host.offset.value, gap.host.length / length});
    }
    return Ok();
  }

  bool Impossible(uint32_t sector) const {
    uint64_t start = uint64_t{sector} * kSectorSize;
    return sector != kUnallocated && (start >= image_.file_size || !image_.ClearOfMetadata(start));
  }

  Status FindHoles() {
    BatReader reader(image_, 0, std::min(image_.bat_entries, image_.BlocksNeeded()));
    for (BatReader::Run run; reader.Next(&run);) {
      IMG_RETURN_IF_ERROR(CheckStop());
      for (uint64_t i = 0; i < run.zeros && bad_.size() < kMostBad; ++i) AddBad(run.first + i);
      for (uint64_t i = 0; i < run.values.size(); ++i) {
        if (run.values[i] == kUnallocated) {
          ++empty_;
          last_empty_ = run.first + i;
        } else if (Impossible(run.values[i])) {
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
    auto at = std::ranges::lower_bound(state_.blocks, offset, {}, &Block::offset);
    return at == state_.blocks.end() || at->offset() != offset ? kNone : at->index;
  }

  void MatchByNeighbours(const Orphan& orphan) {
    uint64_t length = image_.BlockLength(), count = orphan.blocks;
    uint64_t before = orphan.offset >= length ? IndexAt(orphan.offset - length) : kNone;
    uint64_t behind = IndexAt(orphan.offset + count * length);
    if (before != kNone && behind == before + count + 1 && AllHoles(before + 1, count)) {
      Assign(orphan, before + 1, 0.95);
    } else if (before != kNone && AllBad(before + 1, count)) {
      Assign(orphan, before + 1, 0.85);
    } else if (behind != kNone && behind >= count && AllBad(behind - count, count)) {
      Assign(orphan, behind - count, 0.85);
    }
  }

  void MatchByCount() {
    if (orphans_.size() != 1) return;
    const Orphan& orphan = orphans_.front();
    if (!bad_.empty() && bad_.size() == orphan.blocks && AllBad(bad_.front(), orphan.blocks)) {
      Assign(orphan, bad_.front(), orphan.blocks == 1 ? 0.9 : 0.7);
    } else if (bad_.empty() && empty_ == 1 && orphan.blocks == 1) {
      Assign(orphan, last_empty_, 0.9);
    }
  }

  void Assign(const Orphan& orphan, uint64_t first, double confidence) {
    for (uint64_t i = 0; i < orphan.blocks; ++i) {
      bool taken =
          std::ranges::any_of(matches_, [&](const Match& m) { return m.index == first + i; });
      if (taken) return;
    }
    for (uint64_t i = 0; i < orphan.blocks; ++i) {
      matches_.push_back({orphan.offset + i * image_.BlockLength(), first + i, confidence});
    }
  }

  Status Relink(const Match& match) {
    IMG_RETURN_IF_ERROR(
        editor_.WriteEntry(match.index, static_cast<uint32_t>(match.offset / kSectorSize)));
    GuestRange guest = GuestOf(image_, match.index);
    if (guest.length > 0) outcome_.changed.push_back(OfDisk(guest));
    if (outcome_.notes.size() < 20) {
      outcome_.notes.push_back(
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
  PassOutcome outcome_;
  std::vector<Orphan> orphans_;
  std::vector<uint64_t> bad_;  // impossible entries, ascending
  uint64_t empty_ = 0, last_empty_ = 0;
  std::vector<Match> matches_;
};

Result<PassOutcome> Run(const PassContext& context) { return OrphanPass(context).Run(); }

}  // namespace

const Pass kOrphanPass{"orphans", 28, "link blocks again that the block table has lost", Wanted,
                       Run};

}  // namespace imgfsck::vhd
