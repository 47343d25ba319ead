// SPDX-License-Identifier: Apache-2.0
// The bitmap, single sectors, and the length of the file.
#include <fmt/format.h>

#include <algorithm>

#include "base/interrupt.h"
#include "formats/common/stored.h"
#include "repair/cow/passes.h"

namespace imgfsck::cow {
namespace {

// A damaged size must not make a file of terabytes, be it of holes: without the backing file, which
// tells the true size, a file grows by this much at most.
constexpr uint64_t kMostUnprovenGrowth = kGiB;

Result<bool> Grow(const PassContext& context, uint64_t length, PassOutcome* outcome) {
  const CheckState& state = StateOf(context.report);
  const uint64_t old = context.image.Size();
  const bool proven = state.base.state == LinkedFile::State::kPresent && state.base.regular &&
                      state.base.size == state.image->header.size;
  if (length > old && length - old > kMostUnprovenGrowth && !proven) {
    outcome->notes.push_back(fmt::format(
        "the file is not made longer by {} bytes for a disk size that no backing file confirms",
        length - old));
    return false;
  }
  IMG_RETURN_IF_ERROR(context.image.SetSize(length));
  ++outcome->changes;
  return true;
}

// Sets or clears the bits of sectors [first, last).
Status SetBits(ByteStore& bytes, const Geometry& g, uint64_t first, uint64_t last, bool set) {
  constexpr uint64_t kPiece = 8 * 65536;  // sectors
  for (uint64_t at = first; at < last;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t end = std::min(last, AlignDown(at, 8) + kPiece);
    ByteVector bits(DivRoundUp(end, 8) - at / 8);
    uint64_t host = g.bitmap_offset + at / 8;
    IMG_RETURN_IF_ERROR(ReadPadded(bytes, host, bits));
    for (uint64_t sector = at; sector < end; ++sector) {
      uint8_t& byte = bits[sector / 8 - at / 8];
      uint8_t mask = static_cast<uint8_t>(1u << (sector % 8));
      byte = set ? byte | mask : static_cast<uint8_t>(byte & ~mask);
    }
    IMG_RETURN_IF_ERROR(bytes.WriteAt(host, bits));
    at = end;
  }
  return Ok();
}

class Sectors {
 public:
  explicit Sectors(const PassContext& context)
      : context_(context), state_(StateOf(context.report)), image_(*state_.image) {}

  Result<PassOutcome> Run() {
    if (Mends(context_, Problem::kCowDataBeyondEof)) {
      // A disk this much too large has its marks where no marks are.
      if (context_.report.findings.Has(Problem::kCowSizeOverflow) ||
          context_.report.findings.Has(Problem::kCowBitmapTruncated)) {
        outcome_.notes.push_back("no marks are cleared while the disk size is not believed");
      } else {
        IMG_RETURN_IF_ERROR(BeyondEnd());
      }
    }
    if (Mends(context_, Problem::kCowDataHoleSet)) IMG_RETURN_IF_ERROR(Holes());
    if (Mends(context_, Problem::kCowDataUnmapped)) {
      IMG_RETURN_IF_ERROR(ForEachUnmarked(image_, [this](uint64_t first, uint64_t last) {
        return Mark(first, last, true, false);
      }));
    }
    if (Mends(context_, Problem::kCowDataRedundant) && state_.base_bytes) {
      IMG_RETURN_IF_ERROR(
          ForEachEqual(image_, *state_.base_bytes, [this](uint64_t first, uint64_t last) -> Status {
            IMG_RETURN_IF_ERROR(Mark(first, last, false, false));
            HostRange host = image_.HostOf(first, last);
            return context_.image.WriteZeros(host.offset.value, host.length);
          }));
    }
    return std::move(outcome_);
  }

 private:
  const Geometry& g() const { return image_.geometry; }

  Status Mark(uint64_t first, uint64_t last, bool stored, bool lost) {
    IMG_RETURN_IF_ERROR(SetBits(context_.image, g(), first, last, stored));
    uint64_t end = image_.HostOf(first, last).end();
    if (stored && end > context_.image.Size()) IMG_RETURN_IF_ERROR(context_.image.SetSize(end));
    outcome_.changes += last - first;
    LayerRange range{std::string(kActiveLayer), image_.GuestOf(first, last)};
    outcome_.changed.push_back(range);
    if (lost) outcome_.lost.push_back(range);
    return Ok();
  }

  // One sector that the end of the file cuts is completed; those behind it are given up.
  Status BeyondEnd() {
    bool all = context_.options.mode == RepairMode::kAll ||
               context_.options.also_fix.contains(Problem::kCowDataBeyondEof);
    uint64_t data = image_.file_size - std::min(image_.file_size, g().data_offset);
    uint64_t whole = data / g().sector_size, gone = DivRoundUp(data, g().sector_size);
    bool cut_stored = false;
    std::vector<std::pair<uint64_t, uint64_t>> lost;
    IMG_RETURN_IF_ERROR(ForEachStored(
        image_,
        [&](uint64_t first, uint64_t last) {
          if (first <= whole && whole < last) cut_stored = true;
          if (last > gone) lost.emplace_back(std::max(first, gone), last);
          return Ok();
        },
        nullptr));
    uint64_t end = image_.HostOf(whole, gone).end();
    if (cut_stored && whole < gone && end > image_.file_size) {
      IMG_RETURN_IF_ERROR(context_.image.SetSize(end));  // less than a sector
      ++outcome_.changes;
    }
    for (auto [first, last] : lost) {
      if (all) IMG_RETURN_IF_ERROR(Mark(first, last, false, true));
    }
    return Ok();
  }

  // Zeros that a crash left in place of data, where the base has something to show instead.
  Status Holes() {
    if (!state_.base_bytes) {
      outcome_.notes.push_back(
          "whether marked holes are crash residue shows only against the backing file (--chain)");
      return Ok();
    }
    return ForEachStoredHole(image_, [this](uint64_t first, uint64_t last) -> Status {
      for (uint64_t sector = first; sector < last; ++sector) {
        GuestRange guest = image_.GuestOf(sector, sector + 1);
        IMG_ASSIGN_OR_RETURN(bool zeros,
                             ReadsAsZeros(*state_.base_bytes, guest.offset.value, guest.end()));
        if (!zeros) IMG_RETURN_IF_ERROR(Mark(sector, sector + 1, false, false));
      }
      return Ok();
    });
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  PassOutcome outcome_;
};

// Bits behind the last sector, and bytes up to the data, become zero.
Status ClearPadding(const PassContext& context, const Image& image) {
  const Geometry& g = image.geometry;
  uint64_t used = g.tracked_sectors(), begin = g.bitmap_offset + used / 8;
  if (used % 8 != 0) {
    uint8_t byte[1];
    IMG_RETURN_IF_ERROR(ReadPadded(context.image, begin, byte));
    byte[0] = static_cast<uint8_t>(byte[0] & ((1u << (used % 8)) - 1));
    IMG_RETURN_IF_ERROR(context.image.WriteAt(begin, byte));
    ++begin;
  }
  uint64_t end = std::min(g.data_offset, context.image.Size());
  return begin < end ? context.image.WriteZeros(begin, end - begin) : Ok();
}

}  // namespace

Result<PassOutcome> RepairBitmap(const PassContext& context) {
  PassOutcome outcome;
  const CheckState& state = StateOf(context.report);
  const Image& image = *state.image;
  if (!image.walkable) return outcome;
  const Geometry& g = image.geometry;
  if (Mends(context, Problem::kCowBitmapTruncated) && image.file_size < g.bitmap_end()) {
    IMG_ASSIGN_OR_RETURN(const bool grown, Grow(context, g.bitmap_end(), &outcome));
    if (!grown) return outcome;
  }
  if (Mends(context, Problem::kCowBitmapBitsPastSize)) {
    IMG_RETURN_IF_ERROR(ClearPadding(context, image));
    ++outcome.changes;
  }
  if (Mends(context, Problem::kCowBackingNewerMerged)) {
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    IMG_RETURN_IF_ERROR(ForEachStored(
        image, [&](uint64_t first, uint64_t last) { return runs.emplace_back(first, last), Ok(); },
        nullptr));
    for (auto [first, last] : runs) {
      IMG_RETURN_IF_ERROR(SetBits(context.image, g, first, last, false));
      HostRange host = image.HostOf(first, last);
      IMG_RETURN_IF_ERROR(context.image.WriteZeros(host.offset.value, host.length));
      outcome.changed.push_back({std::string(kActiveLayer), image.GuestOf(first, last)});
    }
    Header header = image.header;
    header.mtime = static_cast<uint32_t>(state.base.mtime_seconds);
    IMG_RETURN_IF_ERROR(WriteHeader(context.image, header));
    ++outcome.changes;
  }
  return outcome;
}

Result<PassOutcome> RepairSectors(const PassContext& context) {
  if (!StateOf(context.report).image->walkable) return PassOutcome{};
  return Sectors(context).Run();
}

Result<PassOutcome> RepairLength(const PassContext& context) {
  PassOutcome outcome;
  const Image& image = *StateOf(context.report).image;
  if (!image.walkable) return outcome;
  const Geometry& g = image.geometry;
  uint64_t end = AlignUp(g.data_end(), g.sector_size);
  if (Mends(context, Problem::kCowFileLength) && image.file_size < g.data_end()) {
    // Only where no sector is marked there: else the lost ones would turn into zeros.
    if (context.report.findings.Has(Problem::kCowDataBeyondEof)) {
      outcome.notes.push_back("the file is not lengthened while marked sectors lie behind its end");
      return outcome;
    }
    IMG_RETURN_IF_ERROR(Grow(context, g.data_end(), &outcome));
  }
  if (Mends(context, Problem::kCowTrailingData) && image.file_size > end) {
    IMG_RETURN_IF_ERROR(context.image.SetSize(end));
    ++outcome.changes;
  }
  return outcome;
}

}  // namespace imgfsck::cow
