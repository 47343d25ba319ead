// SPDX-License-Identifier: Apache-2.0
// What every source shares, and the source in memory.
#include "io/byte_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"

namespace imgfsck {
namespace {

// A MemoryStore beyond this is a bug or an attack, not a test.
constexpr uint64_t kLargestMemoryStore = 4 * kGiB;  // bytes
constexpr uint64_t kZeroChunk = kMiB;               // bytes a call of the generic WriteZeros

}  // namespace

Result<HostExtent> ByteSource::ExtentAt(uint64_t offset) const {
  if (offset >= Size()) {
    return Error{ErrorCode::kInvalid, "no extent past the end of the file", offset};
  }
  return HostExtent{offset, Size() - offset, false};
}

void ByteSource::Prefetch(uint64_t, uint64_t) const {}

Status ByteStore::WriteZeros(uint64_t offset, uint64_t length) {
  if (!CheckedAdd(offset, length)) {
    return Error{ErrorCode::kInvalid, "a range of zeros wraps around", offset};
  }
  const ByteVector zeros(std::min(length, kZeroChunk));
  while (length > 0) {
    const uint64_t chunk = std::min(length, kZeroChunk);
    IMG_RETURN_IF_ERROR(WriteAt(offset, Bytes(zeros).first(chunk)));
    offset += chunk;
    length -= chunk;
  }
  return Ok();
}

Status ReadExact(const ByteSource& source, uint64_t offset, MutableBytes buffer) {
  IMG_ASSIGN_OR_RETURN(const size_t got, source.ReadAt(offset, buffer));
  if (got == buffer.size()) return Ok();
  return Error{
      ErrorCode::kInvalid,
      fmt::format("the file ends after {} of {} bytes wanted at {:#x}", got, buffer.size(), offset),
      SaturatingAdd(offset, got)};
}

Status ReadPadded(const ByteSource& source, uint64_t offset, MutableBytes buffer) {
  IMG_ASSIGN_OR_RETURN(const size_t got, source.ReadAt(offset, buffer));
  std::ranges::fill(buffer.subspan(got), uint8_t{0});
  return Ok();
}

Result<size_t> MemoryStore::ReadAt(uint64_t offset, MutableBytes buffer) const {
  if (offset >= bytes_.size()) return size_t{0};
  const size_t length = std::min<uint64_t>(buffer.size(), bytes_.size() - offset);
  std::copy_n(bytes_.data() + offset, length, buffer.data());
  return length;
}

Status MemoryStore::WriteAt(uint64_t offset, Bytes bytes) {
  if (bytes.empty()) return Ok();
  const uint64_t end = SaturatingAdd(offset, bytes.size());
  if (end > bytes_.size()) IMG_RETURN_IF_ERROR(SetSize(end));
  std::ranges::copy(bytes, bytes_.data() + offset);
  return Ok();
}

Status MemoryStore::SetSize(uint64_t size) {
  if (size > kLargestMemoryStore) {
    return Error{ErrorCode::kNoSpace, fmt::format("{} bytes do not fit in memory", size), size};
  }
  bytes_.resize(size);
  return Ok();
}

}  // namespace imgfsck
