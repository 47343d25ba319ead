// SPDX-License-Identifier: Apache-2.0
// The bitmap against the file's length, and what lies around the data.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "analyzers/cow/rules.h"
#include "formats/common/stored.h"

namespace imgfsck::cow {
namespace {

class Bitmap {
 public:
  Bitmap(const CheckState& state, CheckReport* report)
      : image_(*state.image), g_(image_.geometry), report_(report), out_(&report->findings) {}

  Status Run() {
    JudgeExtent();
    IMG_RETURN_IF_ERROR(JudgePadding());
    end_ = g_.bitmap_end();
    std::vector<HostRange> unreadable;
    IMG_RETURN_IF_ERROR(ForEachStored(
        image_, [this](uint64_t first, uint64_t last) { return JudgeRun(first, last); },
        &unreadable));
    for (const HostRange& range : unreadable) {
      Finding f = MakeFinding(Problem::kImageUnreadable, "bitmap");
      f.host = range;
      out_->Add(std::move(f));
      ++report_->counts.check_errors;
    }
    report_->counts.image_end_offset = std::min(end_, image_.file_size);
    return JudgeLength();
  }

 private:
  Finding SectorFinding(Problem problem, uint64_t first, uint64_t last) const {
    Finding f = MakeFinding(problem, "data");
    f.host = image_.HostOf(first, last);
    f.guest = image_.GuestOf(first, last);
    f.layer = kActiveLayer;
    f.count = last - first;
    return f;
  }

  void JudgeExtent() {
    if (image_.file_size < g_.bitmap_end()) {
      Finding f = MakeFinding(Problem::kCowBitmapTruncated, "bitmap");
      f.host = MakeHostRange(g_.bitmap_offset, g_.bitmap_bytes);
      uint64_t present = image_.file_size - std::min(image_.file_size, g_.bitmap_offset);
      uint64_t first = std::min(8 * present, g_.sectors);
      f.guest = image_.GuestOf(first, g_.sectors);
      f.layer = kActiveLayer;
      f.detail = fmt::format("{} of {} bytes", present, g_.bitmap_bytes);
      out_->Add(std::move(f));
    }
    if (!g_.tail_has_no_bits()) return;
    Problem problem =
        g_.tail_is_data() ? Problem::kCowBitmapDataAlias : Problem::kCowBitmapRounding;
    Finding f = SectorFinding(problem, g_.bits(), g_.sectors);
    f.structure = "bitmap";
    f.host = MakeHostRange(g_.bitmap_end(), 1);
    out_->Add(std::move(f));
  }

  // Bits behind the last sector, and bytes up to the data.
  Status JudgePadding() {
    uint64_t bits = 0, begin = g_.bitmap_offset + g_.tracked_sectors() / 8, first = UINT64_MAX;
    std::vector<HostRange> bad;
    auto visit = [&](uint64_t offset, Bytes piece) -> Result<bool> {
      for (size_t i = 0; i < piece.size(); ++i) {
        uint8_t byte = piece[i];
        if (offset + i == begin && g_.tracked_sectors() % 8 != 0) {
          byte = static_cast<uint8_t>(byte >> (g_.tracked_sectors() % 8));
        }
        if (byte == 0) continue;
        first = std::min(first, offset + i);
        bits += static_cast<uint64_t>(std::popcount(byte));
      }
      return true;
    };
    IMG_RETURN_IF_ERROR(ForEachStoredPiece(*image_.source, begin, g_.data_offset, &bad, visit));
    if (bits == 0) return Ok();
    Finding f = MakeFinding(Problem::kCowBitmapBitsPastSize, "bitmap");
    f.host = MakeHostRange(first, g_.data_offset - first);
    f.count = bits;
    out_->Add(std::move(f));
    return Ok();
  }

  Status JudgeRun(uint64_t first, uint64_t last) {
    report_->counts.allocated_clusters += last - first;
    HostRange host = image_.HostOf(first, last);
    end_ = std::max(end_, host.end());
    if (host.end() <= image_.file_size) return Ok();
    uint64_t data = image_.file_size - std::min(image_.file_size, g_.data_offset);
    uint64_t whole = std::clamp(data / g_.sector_size, first, last);
    uint64_t gone = std::clamp(DivRoundUp(data, g_.sector_size), first, last);
    if (whole < gone) {  // the file ends within this one
      Finding f = SectorFinding(Problem::kCowDataBeyondEof, whole, gone);
      f.detail = "the end of the sector";
      f.repair = RepairClass::kSafe;
      out_->Add(std::move(f));
    }
    if (gone < last) {
      Finding f = SectorFinding(Problem::kCowDataBeyondEof, gone, last);
      f.repair = RepairClass::kAll;
      out_->Add(std::move(f));
    }
    return Ok();
  }

  Status JudgeLength() {
    uint64_t end = AlignUp(g_.data_end(), g_.sector_size);
    if (!image_.header.spec().qemu && image_.file_size < g_.data_end()) {
      Finding f = MakeFinding(Problem::kCowFileLength, "file");
      f.detail = fmt::format("{} bytes, usually {}", image_.file_size, g_.data_end());
      out_->Add(std::move(f));
    }
    if (image_.file_size <= end) return Ok();
    Finding f = MakeFinding(Problem::kCowTrailingData, "file");
    f.host = MakeHostRange(end, image_.file_size - end);
    IMG_ASSIGN_OR_RETURN(bool zeros, ReadsAsZeros(*image_.source, end, image_.file_size));
    f.detail = fmt::format("{} bytes{}", image_.file_size - end, zeros ? ", all zero" : "");
    out_->Add(std::move(f));
    return Ok();
  }

  const Image& image_;
  const Geometry& g_;
  CheckReport* report_;
  Findings* out_;
  uint64_t end_ = 0;
};

}  // namespace

Status JudgeBitmap(const CheckState& state, CheckReport* report) {
  return Bitmap(state, report).Run();
}

Status JudgeSectors(const CheckState& state, Findings* out) {
  const Image& image = *state.image;
  auto adder = [&](Problem problem) {
    return [&image, out, problem](uint64_t first, uint64_t last) -> Status {
      Finding f = MakeFinding(problem, "data");
      f.host = image.HostOf(first, last);
      f.guest = image.GuestOf(first, last);
      f.layer = kActiveLayer;
      f.count = last - first;
      out->Add(std::move(f));
      return Ok();
    };
  };
  IMG_RETURN_IF_ERROR(ForEachStoredHole(image, adder(Problem::kCowDataHoleSet)));
  IMG_RETURN_IF_ERROR(ForEachUnmarked(image, adder(Problem::kCowDataUnmapped)));
  if (state.base_bytes == nullptr) return Ok();
  uint64_t stored = 0, equal = 0;
  auto redundant = adder(Problem::kCowDataRedundant);
  IMG_RETURN_IF_ERROR(ForEachStored(
      image, [&](uint64_t first, uint64_t last) { return stored += last - first, Ok(); }, nullptr));
  IMG_RETURN_IF_ERROR(ForEachEqual(image, *state.base_bytes, [&](uint64_t first, uint64_t last) {
    equal += last - first;
    return redundant(first, last);
  }));
  bool newer =
      static_cast<uint32_t>(state.base.mtime_seconds) > static_cast<uint32_t>(image.header.mtime);
  if (stored > 0 && equal == stored && newer) {
    Finding f = MakeFinding(Problem::kCowBackingNewerMerged, "bitmap");
    f.host = MakeHostRange(image.geometry.bitmap_offset, image.geometry.bitmap_bytes);
    f.count = stored;
    f.evidence = "every stored sector is equal to the backing file's, which is newer";
    out->Add(std::move(f));
  }
  return Ok();
}

}  // namespace imgfsck::cow
