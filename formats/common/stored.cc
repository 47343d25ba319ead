// SPDX-License-Identifier: Apache-2.0
#include "formats/common/stored.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "io/file.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = kMiB;     // bytes read at once
constexpr int kMostPieces = 1 << 20;  // asked for when counting

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
