// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/commit.h"

#include <algorithm>

#include "base/interrupt.h"
#include "formats/cow/create.h"
#include "formats/cow/driver.h"

namespace imgfsck::cow {
namespace {

Status CopyStored(ByteStore& image, ByteStore& base, Driver& reader) {
  ByteVector piece;
  uint64_t size = reader.VirtualSize();
  for (uint64_t at = 0; at < size;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(BlockStatus status, reader.StatusAt(at, size - at));
    if (status.state == MappingState::kUnallocated) {
      at += status.length;
      continue;
    }
    piece.resize(std::min<uint64_t>(status.length, kMiB));
    IMG_RETURN_IF_ERROR(ReadPadded(image, *status.host_offset, piece));
    IMG_RETURN_IF_ERROR(base.WriteAt(at, piece));
    at += piece.size();
  }
  return base.Sync();
}

Status ClearBitmap(ByteStore& image, const Geometry& g) {
  ByteVector zeros(std::min<uint64_t>(g.used_bitmap_bytes(), kMiB));
  for (uint64_t done = 0; done < g.used_bitmap_bytes(); done += zeros.size()) {
    uint64_t length = std::min<uint64_t>(zeros.size(), g.used_bitmap_bytes() - done);
    IMG_RETURN_IF_ERROR(image.WriteAt(g.bitmap_offset + done, Bytes(zeros).first(length)));
  }
  return image.Sync();
}

}  // namespace

Status Commit(ByteStore& image, ByteStore& base,
              const std::function<Result<uint64_t>()>& base_mtime) {
  IMG_ASSIGN_OR_RETURN(auto driver, kFormat.open(image, nullptr, {}));
  IMG_ASSIGN_OR_RETURN(auto parsed, ParseImage(image));
  const Geometry g = parsed->geometry;
  if (base.Size() < g.virtual_size) {
    return Error{ErrorCode::kInvalid, "the backing file is smaller than the disk", {}};
  }
  // All of it has to be readable before the first byte of the base changes.
  uint64_t stored_end = image.Size() - std::min(image.Size(), g.data_offset);
  for (uint64_t at = 0; at < g.virtual_size;) {
    IMG_ASSIGN_OR_RETURN(BlockStatus status, driver->StatusAt(at, g.virtual_size - at));
    if (status.state == MappingState::kData &&
        at + status.length > AlignUp(stored_end, g.sector_size)) {
      return Error{ErrorCode::kInvalid, "sectors to be committed lie beyond the end of the file",
                   at};
    }
    at += status.length;
  }
  IMG_RETURN_IF_ERROR(CopyStored(image, base, *driver));
  IMG_RETURN_IF_ERROR(ClearBitmap(image, g));
  uint64_t data = std::min(image.Size(), g.data_offset);
  IMG_RETURN_IF_ERROR(image.WriteZeros(data, image.Size() - data));
  IMG_ASSIGN_OR_RETURN(uint64_t mtime, base_mtime());
  return RestampMtime(image, mtime);
}

}  // namespace imgfsck::cow
