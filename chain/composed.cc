// SPDX-License-Identifier: Apache-2.0
#include "chain/composed.h"

#include <algorithm>

namespace imgfsck {

Driver::BackingReader ReaderOver(Driver& base) {
  return [&base](uint64_t offset, MutableBytes buffer) -> Status {
    uint64_t size = base.VirtualSize();
    size_t inside = offset < size ? std::min<uint64_t>(buffer.size(), size - offset) : 0;
    if (inside > 0) IMG_RETURN_IF_ERROR(base.Read(offset, buffer.first(inside)));
    std::ranges::fill(buffer.subspan(inside), uint8_t{0});
    return Ok();
  };
}

Result<BlockStatus> ComposedDriver::StatusAt(uint64_t offset, uint64_t limit) {
  if (offset >= VirtualSize() || limit == 0) {
    return Error{ErrorCode::kInvalid, "no such place on the disk", {}};
  }
  IMG_ASSIGN_OR_RETURN(ChainStatus found, chain_.StatusAt(offset, limit));
  if (found.depth > 0) found.status.host_offset.reset();  // it lies in another file
  return found.status;
}

Status ComposedDriver::Resize(uint64_t virtual_size) {
  const uint64_t old = VirtualSize();
  IMG_RETURN_IF_ERROR(top().Resize(virtual_size));
  if (chain_.layers().size() < 2) return Ok();
  uint64_t base = std::min(virtual_size, chain_.layers()[1]->driver->VirtualSize());
  return base > old ? top().Zero(old, base - old) : Ok();
}

}  // namespace imgfsck
