// SPDX-License-Identifier: Apache-2.0
// Rows 52, 55 to 59 and 65, which read sector bitmaps and data: --deep. Blocks in file order; what
// the host file system calls a hole is not read.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/mapping.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kBitmapPiece = kMiB;

class BitmapWalk {
 public:
  BitmapWalk(const CheckState& state, const CheckOptions& options, CheckReport* report)
      : state_(state),
        options_(options),
        report_(report),
        image_(*state.image),
        out_(&report->findings),
        bitmap_(image_.bitmap_bytes) {}

  Status Run() {
    uint32_t last = kUnallocated;
    uint64_t done = 0;
    for (const Block& block : state_.blocks) {
      IMG_RETURN_IF_ERROR(CheckStop());
      if (options_.progress) options_.progress("sector bitmaps", done, state_.blocks.size());
      ++done;
      if (block.sector == last || bitmap_.empty()) continue;  // the same bytes again
      last = block.sector;
      JudgeBlock(block);
    }
    for (const HostRange& range : bad_) {
      out_->Add(At(Problem::kImageUnreadable, "block", range.offset.value, range.length));
      ++report_->counts.check_errors;
    }
    return Ok();
  }

 private:
  void JudgeBlock(const Block& block) {
    block_ = block;
    ReadTolerant(*image_.source, block.offset(), bitmap_, &bad_);
    sectors_ = image_.block_size / kSectorSize;
    GuestRange guest = GuestOf(image_, block.index);
    used_ = DivRoundUp(guest.length, kSectorSize);
    if (used_ > 0) JudgeBits();
    JudgeTails();
    JudgeFull();
    misplaced_.reset();
    if (used_ > 0) JudgeData();
  }

  // Something that is no whole number of blocks right before or behind: then the table may be wrong
  // about where this block begins, and its bitmap may be the only copy of something else.
  bool BordersOnLostData() const {
    const uint64_t begin = block_.offset(), end = begin + image_.BlockLength();
    auto at = std::ranges::lower_bound(state_.blocks, block_);
    uint64_t before = 0, behind = image_.DataEnd();
    for (auto other = at; other != state_.blocks.begin() && before == 0;) {
      if ((--other)->sector != block_.sector) before = other->offset() + image_.BlockLength();
    }
    for (auto other = at; other != state_.blocks.end() && other->offset() < end;) {
      if (++other != state_.blocks.end() && other->offset() >= end) behind = other->offset();
    }
    for (const MetaRegion& region : image_.regions) {
      if (region.end() <= begin) before = std::max(before, region.end());
      if (region.offset >= end) behind = std::min(behind, region.offset);
    }
    return IsOdd(before, begin) || IsOdd(end, behind);
  }

  bool IsOdd(uint64_t from, uint64_t to) const {
    if (to <= from || (to - from) % image_.BlockLength() == 0) return false;
    Content content = ClassifyContent(image_, MakeHostRange(from, to - from));
    if (content != Content::kFiller) return content == Content::kData;
    // Ones are a bitmap, but where programs fill up to 4 KiB with them.
    bool fills = to - from < kSmallGap &&
                 (to % kSmallGap == 0 || (to + image_.bitmap_bytes) % kSmallGap == 0);
    return !fills;
  }

  Finding BitmapFinding(Problem problem) const {
    Finding f = At(problem, "block-bitmap", block_.offset(), bitmap_.size());
    if (used_ > 0) {
      f.guest = GuestOf(image_, block_.index);
      f.layer = kActiveLayer;
    }
    return f;
  }

  void JudgeBits() {
    if (!BitAt(bitmap_, 0) && BitRunEnd(bitmap_, 0, used_) == used_) {
      out_->Add(BitmapFinding(Problem::kVhdBitmapEmptyBlock));
    }
  }

  void JudgeTails() {
    auto any = [&](uint64_t from, uint64_t to) {
      return from < to && (BitAt(bitmap_, from) || BitRunEnd(bitmap_, from, to) < to);
    };
    if (any(used_, sectors_)) out_->Add(BitmapFinding(Problem::kVhdBitmapBitsPastSize));
    if (any(sectors_, bitmap_.size() * 8)) out_->Add(BitmapFinding(Problem::kVhdBitmapPadding));
  }

  // Row 65: marked as full in the batmap.
  void JudgeFull() {
    if (!image_.BatmapUsable() || block_.index / 8 >= image_.BatmapBytes()) return;
    uint8_t byte[1];
    ReadTolerant(*image_.source, image_.batmap->offset + block_.index / 8, byte, &bad_);
    if (!BitAt(byte, block_.index % 8) || used_ == 0) return;
    if (BitAt(bitmap_, 0) && BitRunEnd(bitmap_, 0, used_) == used_) return;
    Finding f = BitmapFinding(Problem::kVhdBatmapFullBitmapPartial);
    f.structure = "batmap";
    out_->Add(std::move(f));
  }

  void JudgeData() {
    nonzero_ = false;
    uint64_t data = block_.offset() + image_.bitmap_bytes;
    uint64_t end = std::min(data + used_ * kSectorSize, image_.DataEnd());
    for (uint64_t at = data; at < end;) {
      auto extent = image_.source->ExtentAt(at);
      if (extent && extent->hole && extent->length >= kSectorSize) {
        at += AlignDown(std::min(extent->length, AlignUp(end - at, kSectorSize)), kSectorSize);
        continue;
      }
      buffer_.resize(std::min(kBitmapPiece, end - at));
      ReadTolerant(*image_.source, at, buffer_, &bad_);
      for (uint64_t i = 0; i < buffer_.size(); i += kSectorSize) {
        Bytes sector = Bytes(buffer_).subspan(i, std::min(kSectorSize, buffer_.size() - i));
        JudgeSector((at - data + i) / kSectorSize, sector);
      }
      at += buffer_.size();
    }
    bool full = BitAt(bitmap_, 0) && BitRunEnd(bitmap_, 0, used_) == used_;
    if (image_.kind == Kind::kDifferencing && full && !nonzero_) {
      out_->Add(BitmapFinding(Problem::kVhdBitmapAllOnesDiff));
    }
  }

  void JudgeSector(uint64_t number, Bytes sector) {
    if (AllZero(sector)) return;
    nonzero_ = true;
    if (!BitAt(bitmap_, number)) {
      if (image_.kind == Kind::kDynamic) AddSector(Problem::kVhdBitmapClearSectorNonzero, number);
      return;
    }
    if (AsText(sector.first(8)) != kFooterCookie || sector.size() != kSectorSize) return;
    Footer footer = ParseFooter(sector);
    if (footer.ChecksumValid() && footer.unique_id == image_.footer.unique_id) {
      AddSector(Problem::kVhdBitmapStaleFooter, number);
    }
  }

  void AddSector(Problem problem, uint64_t number) {
    if (!out_->WouldKeep(problem)) {
      out_->AddBare(problem, 1);
      return;
    }
    uint64_t offset = number * kSectorSize;
    Finding f = At(problem, "block", block_.offset() + image_.bitmap_bytes + offset, kSectorSize);
    f.guest = MakeGuestRange(block_.index * image_.block_size + offset, kSectorSize);
    f.layer = kActiveLayer;
    if (problem == Problem::kVhdBitmapClearSectorNonzero) {
      if (!misplaced_) misplaced_ = BordersOnLostData();
      if (*misplaced_) f.repair = RepairClass::kNone;
      f.evidence = "QEMU reads the data, Hyper-V, VirtualBox and XenServer read zeros";
    }
    out_->Add(std::move(f));
  }

  const CheckState& state_;
  const CheckOptions& options_;
  CheckReport* report_;
  const Image& image_;
  Findings* out_;
  ByteVector bitmap_, buffer_;
  std::vector<HostRange> bad_;
  Block block_;
  uint64_t sectors_ = 0;  // of the block
  uint64_t used_ = 0;     // of those, inside the disk
  bool nonzero_ = false;
  std::optional<bool> misplaced_;  // judged when there is something to mend
};

}  // namespace

Status JudgeBitmaps(const CheckState& state, const CheckOptions& options, CheckReport* report) {
  return BitmapWalk(state, options, report).Run();
}

}  // namespace imgfsck::vhd
