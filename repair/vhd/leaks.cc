// SPDX-License-Identifier: Apache-2.0
// Space that no block uses. Given back is what holds nothing but zeros, padding and old footers of
// this very disk: cut off at the end of the file, filled with the last block elsewhere. What holds
// data is kept and counted, unless --orphans says otherwise.
#include <algorithm>

#include "base/checked.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

bool LeaksWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->sparse() &&
         WantedAny(report, options, {Problem::kVhdBatLeakedSpace});
}

class LeakPass {
 public:
  explicit LeakPass(const PassContext& context)
      : editor_(context), image_(editor_.image()), blocks_(editor_.state().blocks) {}

  Result<PassOutcome> Run() {
    const CheckState& state = editor_.state();
    if (!state.table_sound || !state.gaps_complete || !image_.trailing.sound() ||
        !image_.trailing_at_end || !editor_.FooterTrusted()) {
      outcome_.notes.push_back("unused space is looked at once everything else is sound");
      return outcome_;
    }
    end_ = state.end_of_data;
    for (const Gap& gap : state.gaps) IMG_RETURN_IF_ERROR(Judge(gap));
    uint64_t end = AlignUp(end_, kSectorSize);
    if (tail_free_ && end < image_.trailing.offset) {
      outcome_.orphans.freed += UnitsOf(image_.trailing.offset - end);
      IMG_RETURN_IF_ERROR(editor_.EndFileWith(image_.footer, end));
      ++outcome_.changes;
    }
    return outcome_;
  }

 private:
  uint64_t UnitsOf(uint64_t bytes) const {
    return std::max<uint64_t>(bytes / image_.BlockLength(), 1);
  }

  bool Harmless(const Gap& gap) const {
    return editor_.options().orphans == OrphanPolicy::kFree ||
           ClassifyContent(image_, gap.host) <= Content::kSuperseded;
  }

  Status Judge(const Gap& gap) {
    const bool tail = gap.host.end() == image_.DataEnd();
    if (!Harmless(gap)) {
      if (tail) tail_free_ = false;
      outcome_.orphans.kept += UnitsOf(gap.host.length);
      if (editor_.options().orphans == OrphanPolicy::kDirectory) {
        outcome_.pieces.push_back({gap.host, std::nullopt, "unused space"});
      }
      return Ok();
    }
    const uint64_t length = image_.BlockLength();
    if (tail || gap.host.length % length != 0) return Ok();
    for (uint64_t at = gap.host.offset.value; at < gap.host.end(); at += length) {
      IMG_RETURN_IF_ERROR(FillWithLastBlock(at));
    }
    return Ok();
  }

  // Only when the last block is the last thing before the footer: else cutting would not help.
  Status FillWithLastBlock(uint64_t at) {
    if (moved_ >= blocks_.size()) return Ok();
    const Block& last = blocks_[blocks_.size() - 1 - moved_];
    const uint64_t length = image_.BlockLength();
    bool is_last = last.offset() + length == end_ && last.offset() > at;
    if (!is_last || (moved_ + 1) * length > editor_.options().max_copy) return Ok();
    IMG_RETURN_IF_ERROR(editor_.Fill(at, length, 0));
    IMG_RETURN_IF_ERROR(editor_.Copy(last.offset(), at, length));
    IMG_RETURN_IF_ERROR(editor_.WriteEntry(last.index, static_cast<uint32_t>(at / kSectorSize)));
    ++moved_;
    ++outcome_.changes;
    end_ = EndWithout(moved_);
    return Ok();
  }

  // Of metadata and of the blocks but the last `moved`, which now lie further in front.
  uint64_t EndWithout(size_t moved) const {
    uint64_t end = 0;
    for (const MetaRegion& region : image_.regions) end = std::max(end, region.end());
    if (moved < blocks_.size()) {
      end = std::max(end, blocks_[blocks_.size() - 1 - moved].offset() + image_.BlockLength());
    }
    return end;
  }

  Editor editor_;
  const Image& image_;
  const std::vector<Block>& blocks_;
  PassOutcome outcome_;
  uint64_t end_ = 0;
  size_t moved_ = 0;
  bool tail_free_ = true;
};

Result<PassOutcome> RunLeaks(const PassContext& context) { return LeakPass(context).Run(); }

}  // namespace

const Pass kLeakPass{"leaks", 90, "give back space that holds nothing", LeaksWanted, RunLeaks};

}  // namespace imgfsck::vhd
