// SPDX-License-Identifier: Apache-2.0
// Walks over the sectors of an image. Each reads in pieces and reports runs.
#include <algorithm>

#include "analyzers/cow/state.h"
#include "base/interrupt.h"
#include "formats/common/stored.h"
#include "formats/common/tolerant.h"

namespace imgfsck::cow {
namespace {

// Collects single sectors into runs.
class Runs {
 public:
  explicit Runs(const SectorVisitor& visit) : visit_(visit) {}
  Status Add(uint64_t first, uint64_t last) {
    if (first >= last) return Ok();
    if (first == last_ && first_ < last_) {
      last_ = last;
      return Ok();
    }
    IMG_RETURN_IF_ERROR(Finish());
    first_ = first;
    last_ = last;
    return Ok();
  }
  Status Finish() {
    uint64_t first = first_;
    first_ = last_;
    return first < last_ ? visit_(first, last_) : Ok();
  }

 private:
  const SectorVisitor& visit_;
  uint64_t first_ = 0, last_ = 0;
};

Status ForEachRun(const Image& image, bool stored, const SectorVisitor& visit,
                  std::vector<HostRange>* unreadable) {
  RunReader reader(*image.source, image.geometry, 0, image.geometry.tracked_sectors());
  Run run;
  for (;;) {
    IMG_ASSIGN_OR_RETURN(bool more, reader.Next(&run));
    if (!more) break;
    if (run.stored == stored) IMG_RETURN_IF_ERROR(visit(run.first, run.last));
  }
  if (unreadable != nullptr) {
    unreadable->insert(unreadable->end(), reader.unreadable().begin(), reader.unreadable().end());
  }
  return Ok();
}

}  // namespace

Status ForEachStored(const Image& image, const SectorVisitor& visit,
                     std::vector<HostRange>* unreadable) {
  return ForEachRun(image, true, visit, unreadable);
}

Status ForEachStoredHole(const Image& image, const SectorVisitor& visit) {
  const Geometry& g = image.geometry;
  Runs runs(visit);
  auto look = [&](uint64_t first, uint64_t last) -> Status {
    uint64_t end = std::min(g.HostOf(last), AlignDown(image.file_size, g.sector_size));
    for (uint64_t at = g.HostOf(first); at < end;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(HostExtent extent, image.source->ExtentAt(at));
      uint64_t stop = std::min(SaturatingAdd(extent.offset, extent.length), end);
      if (stop <= at) stop = end;
      if (extent.hole) {  // whole sectors only
        IMG_RETURN_IF_ERROR(
            ForEachLastingHole(*image.source, at, stop, [&](uint64_t begin, uint64_t hole_end) {
              return runs.Add(DivRoundUp(begin - g.data_offset, g.sector_size),
                              (hole_end - g.data_offset) / g.sector_size);
            }));
      }
      at = stop;
    }
    return Ok();
  };
  IMG_RETURN_IF_ERROR(ForEachStored(image, look, nullptr));
  return runs.Finish();
}

Status ForEachUnmarked(const Image& image, const SectorVisitor& visit) {
  const Geometry& g = image.geometry;
  Runs runs(visit);
  std::vector<HostRange> bad;
  auto look = [&](uint64_t first, uint64_t last) -> Status {
    return ForEachStoredPiece(*image.source, g.HostOf(first), g.HostOf(last), &bad,
                              [&](uint64_t offset, Bytes piece) -> Result<bool> {
                                uint64_t end = offset + piece.size();
                                for (uint64_t at = offset; at < end;) {
                                  uint64_t sector = (at - g.data_offset) / g.sector_size;
                                  uint64_t next = std::min(end, g.HostOf(sector + 1));
                                  if (!AllZero(piece.subspan(at - offset, next - at))) {
                                    IMG_RETURN_IF_ERROR(runs.Add(sector, sector + 1));
                                  }
                                  at = next;
                                }
                                return true;
                              });
  };
  IMG_RETURN_IF_ERROR(ForEachRun(image, false, look, nullptr));
  return runs.Finish();
}

Status ForEachEqual(const Image& image, const ByteSource& base, const SectorVisitor& visit) {
  const Geometry& g = image.geometry;
  Runs runs(visit);
  ByteVector ours, theirs;
  std::vector<HostRange> bad;
  uint64_t step = kMiB / g.sector_size;
  auto look = [&](uint64_t first, uint64_t last) -> Status {
    for (uint64_t at = first; at < last; at += step) {
      IMG_RETURN_IF_ERROR(CheckStop());
      uint64_t end = std::min(at + step, last);
      GuestRange guest = image.GuestOf(at, end);
      if (!RangeFits(g.HostOf(at), guest.length, image.file_size)) return Ok();
      ours.resize(guest.length);
      theirs.resize(guest.length);
      ReadTolerant(*image.source, g.HostOf(at), ours, &bad);
      ReadTolerant(base, guest.offset.value, theirs, &bad);
      for (uint64_t sector = at; sector < end; ++sector) {
        uint64_t skip = (sector - at) * g.sector_size;
        uint64_t length = std::min(g.sector_size, guest.length - skip);
        auto from = ours.begin() + static_cast<ptrdiff_t>(skip);
        bool equal = std::equal(from, from + static_cast<ptrdiff_t>(length),
                                theirs.begin() + static_cast<ptrdiff_t>(skip));
        if (equal) IMG_RETURN_IF_ERROR(runs.Add(sector, sector + 1));
      }
    }
    return Ok();
  };
  IMG_RETURN_IF_ERROR(ForEachStored(image, look, nullptr));
  return runs.Finish();
}

}  // namespace imgfsck::cow
