// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/extents.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"

namespace imgfsck {

DataPieces::DataPieces(const std::vector<Driver*>& disks, uint64_t size, uint64_t piece)
    : size_(size), piece_(piece) {
  for (Driver* disk : disks) disks_.push_back({disk, 0});
}

Status DataPieces::SkipZeros(Disk& disk) const {
  uint64_t at = std::max(at_, disk.zero_until);
  const uint64_t end = std::min(size_, disk.driver->VirtualSize());
  while (at < end) {
    IMG_RETURN_IF_ERROR(CheckStop());
    auto status = disk.driver->StatusAt(at, end - at);
    // Past damage: reading tells what is wrong.
    if (!status ||
        (status->state != MappingState::kZero && status->state != MappingState::kUnallocated)) {
      break;
    }
    at += std::clamp<uint64_t>(status->length, 1, end - at);
  }
  disk.zero_until = at < end ? at : size_;
  return Ok();
}

Result<std::optional<GuestRange>> DataPieces::Next() {
  uint64_t data = disks_.empty() ? at_ : size_;
  for (Disk& disk : disks_) {
    IMG_RETURN_IF_ERROR(SkipZeros(disk));
    data = std::min(data, disk.zero_until);
  }
  if (data >= size_) return std::optional<GuestRange>();
  const uint64_t begin = AlignDown(data, piece_);
  const uint64_t length = std::min(piece_, size_ - begin);
  at_ = begin + length;
  return std::optional(MakeGuestRange(begin, length));
}

}  // namespace imgfsck
