// SPDX-License-Identifier: Apache-2.0
#include "formats/common/stored.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "io/file.h"
#include "io/overlay.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = kMiB;     // bytes read at once
constexpr int kMostPieces = 1 << 20;  // asked for when counting
constexpr size_t kExtents = 128;      // asked for at once

// The file below all that only changes some of its bytes.
const FileSource* FileBelow(const ByteSource& source) {
  const ByteSource* below = &source;
  while (const auto* overlay = dynamic_cast<const Overlay*>(below)) below = &overlay->base();
  return dynamic_cast<const FileSource*>(below);
}

}  // namespace

Status ForEachStoredPiece(const ByteSource& source, uint64_t begin, uint64_t end,
                          std::vector<HostRange>* bad, const PieceVisitor& visit) {
  end = std::min(end, source.Size());
  ByteVector buffer;
  while (begin < end) {
    IMG_RETURN_IF_ERROR(CheckStop());
    auto extent = source.ExtentAt(begin);
    uint64_t stop = extent ? SaturatingAdd(extent->offset, extent->length) : end;
    if (stop <= begin || stop > end) stop = end;
    if (extent && extent->hole) {
      begin = stop;
      continue;
    }
    uint64_t length = std::min(kPiece, stop - begin);
    buffer.resize(length);
    ReadTolerant(source, begin, buffer, bad);
    IMG_ASSIGN_OR_RETURN(bool more, visit(begin, buffer));
    if (!more) return Ok();
    begin += length;
  }
  return Ok();
}

Status ForEachLastingHole(const ByteSource& source, uint64_t begin, uint64_t end,
                          const HoleVisitor& visit) {
  const FileSource* file = FileBelow(source);
  while (begin < end) {
    IMG_RETURN_IF_ERROR(CheckStop());
    alignas(fiemap) std::array<char, sizeof(fiemap) + kExtents * sizeof(fiemap_extent)> bytes{};
    auto* list = new (bytes.data()) fiemap{};
    list->fm_start = begin;
    list->fm_length = end - begin;
    list->fm_extent_count = kExtents;
    // Not every file system answers; some have no such space either.
    if (file == nullptr || ioctl(file->fd(), FS_IOC_FIEMAP, list) != 0) return visit(begin, end);
    const size_t count = std::min<size_t>(list->fm_mapped_extents, kExtents);
    for (size_t i = 0; i < count; ++i) {
      const uint64_t from = list->fm_extents[i].fe_logical;
      if (from > begin) IMG_RETURN_IF_ERROR(visit(begin, std::min(from, end)));
      begin = std::max(begin, SaturatingAdd(from, list->fm_extents[i].fe_length));
      if (begin >= end) return Ok();
    }
    if (count < kExtents) return visit(begin, end);
  }
  return Ok();
}

Result<bool> ReadsAsZeros(const ByteSource& source, uint64_t begin, uint64_t end) {
  bool zeros = true;
  std::vector<HostRange> bad;
  IMG_RETURN_IF_ERROR(
      ForEachStoredPiece(source, begin, end, &bad, [&](uint64_t, Bytes bytes) -> Result<bool> {
        zeros = AllZero(bytes);
        return zeros;
      }));
  return zeros && bad.empty();
}

uint64_t StoredBytes(const ByteSource& source) {
  // What the host says. It tells holes from data by what is in memory, too: there, space that was
  // set aside and never written becomes data by being read.
  if (const auto* file = dynamic_cast<const FileSource*>(&source)) {
    const auto allocated = AllocatedBytes(file->fd());
    if (allocated && !file->is_block_device()) return *allocated;
    return file->Size();
  }
  uint64_t stored = 0, at = 0, size = source.Size();
  for (int piece = 0; at < size; ++piece) {
    auto extent = source.ExtentAt(at);
    uint64_t end = extent ? SaturatingAdd(extent->offset, extent->length) : size;
    if (piece == kMostPieces || end <= at || end > size) end = size;
    if (!extent || !extent->hole) stored += end - at;
    at = end;
  }
  return stored;
}

}  // namespace imgfsck
