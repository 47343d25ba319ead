// SPDX-License-Identifier: Apache-2.0
// Writes the image anew in the packed version 3 layout, which has a bit for every sector and one
// meaning only. Sectors that the old layout has no bit for come from the backing file, as they read
// today.
#include <algorithm>

#include "base/interrupt.h"
#include "formats/common/stored.h"
#include "repair/cow/passes.h"

namespace imgfsck::cow {
namespace {

Status CopySectors(const Image& image, const Geometry& to, ByteStore* out) {
  ByteVector piece;
  uint64_t step = kMiB / to.sector_size;
  auto copy = [&](uint64_t first, uint64_t last) -> Status {
    for (uint64_t at = first; at < last; at += step) {
      IMG_RETURN_IF_ERROR(CheckStop());
      uint64_t end = std::min(last, at + step);
      HostRange from = image.HostOf(at, end);
      if (from.offset.value >= image.file_size) return Ok();
      piece.resize(std::min(from.length, image.file_size - from.offset.value));
      IMG_RETURN_IF_ERROR(ReadExact(*image.source, from.offset.value, piece));
      IMG_RETURN_IF_ERROR(out->WriteAt(to.HostOf(at), piece));
    }
    ByteVector bits(DivRoundUp(last, 8) - first / 8);
    uint64_t host = to.bitmap_offset + first / 8;
    IMG_RETURN_IF_ERROR(ReadPadded(*out, host, bits));
    for (uint64_t sector = first; sector < last; ++sector) {
      bits[sector / 8 - first / 8] |= static_cast<uint8_t>(1u << (sector % 8));
    }
    return out->WriteAt(host, bits);
  };
  return ForEachStored(image, copy, nullptr);
}

// Which of the layouts that fit about as well is the one: that whose disk is as large as the file
// that it names. The name is in the same place in all of them.
std::unique_ptr<Image> JudgedByBase(const CheckState& state) {
  const Image& image = *state.image;
  if (image.layouts.clear || state.base.state != LinkedFile::State::kPresent) return nullptr;
  const Header* fitting = nullptr;
  for (size_t i = 0; i < image.layouts.contenders; ++i) {
    const Header& header = image.layouts.candidates[i].header;
    if (header.path != image.header.path || header.size != state.base.size) continue;
    if (fitting != nullptr) return nullptr;
    fitting = &header;
  }
  return fitting == nullptr ? nullptr : ImageAs(*image.source, *fitting);
}

Status CopyBack(const ByteSource& from, ByteStore* to) {
  IMG_RETURN_IF_ERROR(to->SetSize(from.Size()));
  ByteVector piece(kMiB);
  for (uint64_t at = 0; at < from.Size(); at += piece.size()) {
    IMG_RETURN_IF_ERROR(CheckStop());
    MutableBytes part(piece.data(), std::min<uint64_t>(piece.size(), from.Size() - at));
    IMG_RETURN_IF_ERROR(ReadExact(from, at, part));
    IMG_RETURN_IF_ERROR(to->WriteAt(at, part));
  }
  return Ok();
}

// The disk is all that the file holds: neither marks nor data lie behind its end.
Result<bool> NothingBehind(const Image& image) {
  const Geometry& g = image.geometry;
  const uint64_t used = g.tracked_sectors();
  uint64_t begin = g.bitmap_offset + used / 8;
  if (used % 8 != 0 && begin < image.file_size) {
    uint8_t byte[1];
    IMG_RETURN_IF_ERROR(ReadExact(*image.source, begin++, byte));
    if (byte[0] >> (used % 8) != 0) return false;
  }
  for (auto [from, to] : {std::pair(begin, g.data_offset),
                          std::pair(AlignUp(g.data_end(), g.sector_size), image.file_size)}) {
    to = std::min(to, image.file_size);
    if (from >= to) continue;
    IMG_ASSIGN_OR_RETURN(const bool zeros, ReadsAsZeros(*image.source, from, to));
    if (!zeros) return false;
  }
  return true;
}

}  // namespace

Result<PassOutcome> Convert(const PassContext& context) {
  PassOutcome outcome;
  const CheckState& state = StateOf(context.report);
  const auto judged = JudgedByBase(state);
  const Image& image = judged ? *judged : *state.image;
  const Header& old = image.header;
  if (!image.walkable || !old.magic_found || old.version != old.spec().version) return outcome;
  if (context.report.findings.Has(Problem::kCowDataBeyondEof)) {
    outcome.notes.push_back("the image is not converted while marked sectors are missing");
    return outcome;
  }
  IMG_ASSIGN_OR_RETURN(const bool all_read, NothingBehind(image));
  if (!all_read) {
    outcome.notes.push_back(
        "the image is not converted: there are marks or bytes behind the end of its disk, whose "
        "size may be wrong");
    return outcome;
  }
  Header header = old;
  header.layout = LayoutId::kUml3;
  header.version = 3;
  header.little_endian = false;
  header.alignment = kPageAlignment;
  header.size = image.geometry.virtual_size;
  Geometry g = header.geometry();
  if (!g.valid || g.data_offset >= kMaxDataOffset) return outcome;
  MemoryStore empty;
  Overlay fresh(empty);
  IMG_RETURN_IF_ERROR(fresh.SetSize(g.data_end()));
  IMG_RETURN_IF_ERROR(WriteHeader(fresh, header));
  IMG_RETURN_IF_ERROR(CopySectors(image, g, &fresh));
  IMG_RETURN_IF_ERROR(CopyBack(fresh, &context.image));
  ++outcome.changes;
  return outcome;
}

}  // namespace imgfsck::cow
