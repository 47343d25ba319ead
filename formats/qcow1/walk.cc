// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow1/walk.h"

#include <algorithm>

#include "base/interrupt.h"

namespace imgfsck::qcow1 {

ExtentWalker::ExtentWalker(const Image& image, uint64_t begin, uint64_t end)
    : image_(image), at_(begin), end_(std::min(end, image.geometry.virtual_size)) {
  if (!image.walkable) return;
  // Start at cluster boundaries, so that an extent's entry is that of its first byte.
  at_ = AlignDown(begin, image.geometry.cluster_size);
  uint64_t first = at_ / image.geometry.span;
  auto slot = std::lower_bound(image.l1.begin(), image.l1.end(), first,
                               [](const L1Slot& s, uint64_t index) { return s.index < index; });
  slot_ = static_cast<size_t>(slot - image.l1.begin());
}

Extent ExtentWalker::Unmapped(uint64_t to, uint32_t flags) {
  Extent extent{at_, std::min(to, end_) - at_, {}, flags, MappingState::kUnallocated};
  at_ += extent.length;
  return extent;
}

Extent ExtentWalker::Mapped(uint64_t cluster_end) {
  Entry entry{entries_[at_ / image_.geometry.cluster_size % image_.geometry.l2_entries]};
  EntryCheck check = CheckEntry(image_, entry);
  uint32_t flags = (check.unreadable ? kMappingDamaged : 0) |
                   (check.past_eof || check.cut ? kMappingPastEnd : 0);
  Extent extent{at_, std::min(cluster_end, end_) - at_, entry, flags,
                entry.compressed() ? MappingState::kCompressed : MappingState::kData};
  at_ += extent.length;
  return extent;
}

Result<bool> ExtentWalker::Next(Extent* extent) {
  if (at_ >= end_) return false;
  const Geometry& g = image_.geometry;
  if (!image_.walkable || !image_.l1_clear) {
    *extent = Unmapped(end_, kMappingDamaged);
    return true;
  }
  if (slot_ >= image_.l1.size()) {
    *extent = Unmapped(end_, 0);
    return true;
  }
  const L1Slot& slot = image_.l1[slot_];
  uint64_t slot_begin = SaturatingMul(slot.index, g.span);
  uint64_t slot_end = SaturatingAdd(slot_begin, g.span);
  if (at_ < slot_begin) {
    *extent = Unmapped(slot_begin, 0);
    return true;
  }
  SlotState state = image_.StateOf(slot);
  if (state != SlotState::kUsable) {
    *extent = Unmapped(slot_end, state == SlotState::kFlag ? kMappingDamaged : kMappingPastEnd);
    ++slot_;
    return true;
  }
  if (loaded_ != slot_) {
    IMG_RETURN_IF_ERROR(CheckStop());
    ReadL2(image_, slot.value, &entries_, &bad_);
    bad_.clear();
    loaded_ = slot_;
  }
  uint64_t index = at_ / g.cluster_size % g.l2_entries;
  uint64_t last = index;
  while (last < g.l2_entries && entries_[last] == 0) ++last;
  *extent = last > index ? Unmapped(slot_begin + last * g.cluster_size, 0)
                         : Mapped(AlignDown(at_, g.cluster_size) + g.cluster_size);
  if (at_ >= slot_end) ++slot_;
  return true;
}

std::vector<TableUse> TablesByOffset(const Image& image) {
  std::vector<TableUse> tables;
  for (size_t i = 0; i < image.l1.size(); ++i) {
    if (image.StateOf(image.l1[i]) == SlotState::kUsable) tables.push_back({image.l1[i].value, i});
  }
  std::stable_sort(tables.begin(), tables.end(),
                   [](const TableUse& a, const TableUse& b) { return a.offset < b.offset; });
  return tables;
}

}  // namespace imgfsck::qcow1
