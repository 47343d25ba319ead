// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/bat.h"

#include <algorithm>

#include "base/checked.h"
#include "formats/common/tolerant.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kEntriesARun = 16384;

}  // namespace

BatReader::BatReader(const Image& image, uint64_t first, uint64_t end)
    : image_(image), next_(first), end_(std::min(end, image.bat_stored)) {}

bool BatReader::Next(Run* run) {
  *run = {};
  if (next_ >= end_) return false;
  run->first = next_;
  uint64_t offset = image_.bat_offset + next_ * 4;
  auto extent = image_.source->ExtentAt(offset);
  if (extent && extent->hole && extent->length / 4 >= kEntriesARun) {
    run->zeros = std::min(extent->length / 4, end_ - next_);
    next_ += run->zeros;
    return true;
  }
  uint64_t count = std::min(kEntriesARun, end_ - next_);
  bytes_.resize(count * 4);
  size_t known_bad = unreadable_.size();
  std::vector<HostRange> bad;
  ReadTolerant(*image_.source, offset, bytes_, &bad);
  values_.resize(count);
  for (uint64_t i = 0; i < count; ++i) values_[i] = LoadBe<uint32_t>(&bytes_[i * 4]);
  for (const HostRange& range : bad) {
    uint64_t from = std::max(range.offset.value, offset) - offset;
    uint64_t to = std::min(range.end(), offset + bytes_.size()) - offset;
    std::fill(values_.begin() + static_cast<ptrdiff_t>(from / 4),
              values_.begin() + static_cast<ptrdiff_t>(DivRoundUp(to, 4)), kUnallocated);
  }
  unreadable_.insert(unreadable_.begin() + static_cast<ptrdiff_t>(known_bad), bad.begin(),
                     bad.end());
  next_ += count;
  run->values = values_;
  return true;
}

Result<uint32_t> BatEntryAt(const ByteSource& source, const Image& image, uint64_t index) {
  if (index >= image.bat_entries) return kUnallocated;
  uint8_t bytes[4];
  IMG_RETURN_IF_ERROR(ReadPadded(source, image.bat_offset + index * 4, bytes));
  return LoadBe<uint32_t>(bytes);
}

}  // namespace imgfsck::vhd
