// SPDX-License-Identifier: Apache-2.0
#include "repair/read_watch.h"

namespace imgfsck {
namespace {

constexpr size_t kMost = 256;  // a medium with more bad places has some that fail every time

}  // namespace

Result<size_t> ReadWatch::ReadAt(uint64_t offset, MutableBytes buffer) const {
  auto read = base_.ReadAt(offset, buffer);
  if (read || read.error().code != ErrorCode::kIo) return read;
  const std::lock_guard lock(mutex_);
  if (failures_.size() < kMost) failures_.push_back({offset, buffer.size()});
  return read;
}

Status ReadWatch::Confirm() const {
  ByteVector buffer;
  for (const Failure& failure : failures_) {
    buffer.resize(failure.length);
    if (!base_.ReadAt(failure.offset, buffer)) continue;
    return Error{ErrorCode::kIo,
                 "a place of the image could not be read while the repair was worked out, and can "
                 "be read now: the medium is failing; copy the image to a sound one with ddrescue "
                 "and repair the copy",
                 failure.offset};
  }
  return Ok();
}

}  // namespace imgfsck
