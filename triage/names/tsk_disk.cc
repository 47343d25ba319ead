// SPDX-License-Identifier: Apache-2.0
#ifdef IMGFSCK_HAVE_TSK
#include "triage/names/tsk_disk.h"

#include <algorithm>

#include "base/checked.h"
#include "triage/names/tsk_library.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = 4 * kKiB;  // what is damaged costs so much of its neighbourhood
constexpr size_t kMostFaults = 1000;
constexpr unsigned kSectorBytes = 512;

}  // namespace

TskDisk::TskDisk(const GuestDisk& disk) : disk_(disk) {
  image_.owner = this;
  const auto size = static_cast<TSK_OFF_T>(std::min<uint64_t>(disk.size, INT64_MAX));
  Tsk()->img_open_external(
      &image_, size, kSectorBytes, ReadCallback, [](TSK_IMG_INFO*) {}, [](TSK_IMG_INFO*, FILE*) {});
}

TskDisk::~TskDisk() { Tsk()->img_close(&image_.info); }

ssize_t TskDisk::ReadCallback(TSK_IMG_INFO* info, TSK_OFF_T offset, char* buffer, size_t size) {
  TskDisk* self = reinterpret_cast<Image*>(info)->owner;
  const MutableBytes bytes(reinterpret_cast<uint8_t*>(buffer), size);
  if (offset < 0) {
    std::ranges::fill(bytes, uint8_t{0});
  } else {
    self->Read(static_cast<uint64_t>(offset), bytes);
  }
  return static_cast<ssize_t>(size);
}

void TskDisk::Read(uint64_t offset, MutableBytes buffer) {
  std::ranges::fill(buffer, uint8_t{0});
  if (offset >= disk_.size) return;
  const uint64_t size = std::min<uint64_t>(buffer.size(), disk_.size - offset);
  for (uint64_t at = 0; at < size;) {
    const uint64_t length = std::min(size - at, kPiece - (offset + at) % kPiece);
    const MutableBytes piece = buffer.subspan(at, length);
    if (!disk_.read(offset + at, piece)) {
      std::ranges::fill(piece, uint8_t{0});
      const bool continues = !faults_.empty() && faults_.back().end() == offset + at;
      if (continues) {
        faults_.back().length += length;
      } else if (faults_.size() < kMostFaults) {
        faults_.push_back(MakeGuestRange(offset + at, length));
      }
    }
    at += length;
  }
}

std::vector<GuestRange> TskDisk::TakeFaults() {
  std::ranges::sort(faults_, {}, [](const GuestRange& range) { return range.offset.value; });
  std::vector<GuestRange> merged;
  for (const GuestRange& range : faults_) {
    if (!merged.empty() && range.offset.value <= merged.back().end()) {
      const uint64_t end = std::max(merged.back().end(), range.end());
      merged.back().length = end - merged.back().offset.value;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

}  // namespace imgfsck
#endif  // IMGFSCK_HAVE_TSK
