// SPDX-License-Identifier: Apache-2.0
// Sector bitmaps that disagree with the data, as a deep check found them. Safe is only what QEMU's
// view of the disk does not notice: marking sectors with data as written. The rest is done for
// those who ask for it by name.
#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/mapping.h"
#include "formats/vhd/parse.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kBitmapsMended = {Problem::kVhdBitmapClearSectorNonzero,
                                                           Problem::kVhdBitmapBitsPastSize,
                                                           Problem::kVhdBitmapPadding,
                                                           Problem::kVhdBitmapEmptyBlock,
                                                           Problem::kVhdBitmapAllOnesDiff,
                                                           Problem::kVhdBitmapStaleFooter};

bool BitmapsWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->sparse() && WantedAny(report, options, kBitmapsMended);
}

class BitmapPass {
 public:
  explicit BitmapPass(const PassContext& context) : editor_(context), image_(editor_.image()) {}

  Result<PassOutcome> Run() {
    if (!editor_.state().table_sound) {
      outcome_.notes.push_back("sector bitmaps are looked at once the block table is sound");
      return outcome_;
    }
    for (Problem problem : kBitmapsMended) {
      for (const Finding* finding : editor_.FindingsOf(problem)) {
        IMG_RETURN_IF_ERROR(Mend(*finding));
      }
    }
    return outcome_;
  }

 private:
  Status Mend(const Finding& f) {
    switch (f.problem) {
      case Problem::kVhdBitmapClearSectorNonzero:
        return MarkSectors(f, true);
      case Problem::kVhdBitmapAllOnesDiff:
        return MarkSectors(f, false);
      case Problem::kVhdBitmapEmptyBlock:
        return DropIfZero(f);
      case Problem::kVhdBitmapStaleFooter:
        return ZeroSectors(f);
      default:
        return ClearTail(f);
    }
  }

  Result<uint64_t> StartOf(uint64_t index) {
    uint8_t bytes[4];
    IMG_RETURN_IF_ERROR(ReadPadded(editor_.overlay(), image_.bat_offset + index * 4, bytes));
    return uint64_t{LoadBe<uint32_t>(bytes)} * kSectorSize;
  }

  // The guest range of a finding lies in one block unless findings of several were joined.
  Status MarkSectors(const Finding& f, bool on) {
    if (!f.guest) return Ok();
    for (uint64_t at = f.guest->offset.value; at < f.guest->end();) {
      uint64_t index = at / image_.block_size;
      uint64_t end = std::min(f.guest->end(), (index + 1) * image_.block_size);
      IMG_ASSIGN_OR_RETURN(uint64_t start, StartOf(index));
      ByteVector bitmap(image_.bitmap_bytes);
      IMG_RETURN_IF_ERROR(ReadPadded(editor_.overlay(), start, bitmap));
      uint64_t base = index * image_.block_size;
      for (uint64_t s = (at - base) / kSectorSize; s < DivRoundUp(end - base, kSectorSize); ++s) {
        SetBit(bitmap, s, on);
      }
      IMG_RETURN_IF_ERROR(editor_.Write(start, bitmap));
      auto& list = on ? outcome_.settled : outcome_.changed;  // QEMU showed it all the time
      list.push_back(OfDisk(MakeGuestRange(at, end - at)));
      ++outcome_.changes;
      at = end;
    }
    return Ok();
  }

  Status DropIfZero(const Finding& f) {
    if (!f.guest) return Ok();
    for (uint64_t at = f.guest->offset.value; at < f.guest->end(); at += image_.block_size) {
      uint64_t index = at / image_.block_size;
      IMG_ASSIGN_OR_RETURN(uint64_t start, StartOf(index));
      HostRange data = MakeHostRange(start + image_.bitmap_bytes, image_.block_size);
      if (ClassifyContent(image_, data) != Content::kZero) continue;
      IMG_RETURN_IF_ERROR(editor_.WriteEntry(index, kUnallocated));
      ++outcome_.changes;
    }
    return Ok();
  }

  Status ZeroSectors(const Finding& f) {
    if (!f.host || !f.guest) return Ok();
    outcome_.changed.push_back(OfDisk(*f.guest));
    outcome_.lost.push_back(OfDisk(*f.guest));
    ++outcome_.changes;
    return editor_.Fill(f.host->offset.value, f.host->length, 0);
  }

  // Bits past the end of the disk, or of the block.
  Status ClearTail(const Finding& f) {
    if (!f.host) return Ok();
    ByteVector bitmap(image_.bitmap_bytes);
    IMG_RETURN_IF_ERROR(ReadPadded(editor_.overlay(), f.host->offset.value, bitmap));
    uint64_t used = image_.block_size / kSectorSize;
    if (f.problem == Problem::kVhdBitmapBitsPastSize) {
      used = f.guest ? DivRoundUp(f.guest->length, kSectorSize) : 0;
    }
    for (uint64_t s = used; s < bitmap.size() * 8; ++s) SetBit(bitmap, s, false);
    ++outcome_.changes;
    return editor_.Write(f.host->offset.value, bitmap);
  }

  Editor editor_;
  const Image& image_;
  PassOutcome outcome_;
};

Result<PassOutcome> RunBitmaps(const PassContext& context) { return BitmapPass(context).Run(); }

}  // namespace

const Pass kBitmapPass{"sector-bitmaps", 40, "make sector bitmaps and data agree", BitmapsWanted,
                       RunBitmaps};

}  // namespace imgfsck::vhd
