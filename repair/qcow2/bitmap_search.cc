// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/bitmap_search.h"

#include <algorithm>

#include "formats/common/tolerant.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kFixedSize = 24;
constexpr uint64_t kLongestEntry = AlignUp(kFixedSize + kMaxBitmapName, 8);
constexpr uint64_t kBitmapSearchMaxOrphans = 1 << 16;  // clusters
constexpr unsigned kMaxCandidates = 16;                // directories read in full
constexpr uint64_t kMaxTableClusters = 16;             // of a table that is looked for

}  // namespace

BitmapSearch::BitmapSearch(const ByteSource& bytes, const CheckState& state)
    : bytes_(bytes), state_(state), image_(*state.image) {}

bool BitmapSearch::IsOrphan(uint64_t offset) const {
  uint64_t cluster = offset >> image_.geometry.cluster_bits;
  return state_.counts_compared && offset != 0 && offset < image_.file_size &&
         IsAligned(offset, image_.geometry.cluster_size) && state_.claims().Count(cluster) == 0 &&
         StoredCount(image_, cluster) == 1;
}

bool BitmapSearch::IsSound(const std::vector<uint64_t>& table) const {
  return std::ranges::all_of(table, [&](uint64_t entry) {
    uint64_t offset = entry & kOffsetMask;
    return (entry & kBitmapEntryReserved) == 0 && (offset == 0 || (entry & kBitmapAllOnes) == 0) &&
           offset < image_.file_size && IsAligned(offset, image_.geometry.cluster_size);
  });
}

bool BitmapSearch::IsOrphanTable(const Bitmap& bitmap) const {
  const uint64_t cluster_size = image_.geometry.cluster_size;
  for (uint64_t at = 0; at < uint64_t{bitmap.table_size} * 8; at += cluster_size) {
    if (!IsOrphan(bitmap.table_offset + at)) return false;
  }
  std::vector<uint64_t> table = LoadBitmapTable(image_, bitmap);
  if (table.empty() || !IsSound(table)) return false;
  return std::ranges::all_of(table, [&](uint64_t entry) {
    uint64_t offset = entry & kOffsetMask;
    return offset == 0 || IsOrphan(offset);
  });
}

// How many fields of an entry cannot be. Other bytes than an entry have several such.
unsigned BitmapSearch::Faults(Bytes b) const {
  if (b.size() < kFixedSize) return 99;
  const uint64_t table_offset = BeAt<uint64_t>(b, 0);
  const uint32_t table_size = BeAt<uint32_t>(b, 8);
  const uint16_t name_size = BeAt<uint16_t>(b, 18);
  return (table_offset == 0) + !IsAligned(table_offset, image_.geometry.cluster_size) +
         (table_offset >= image_.file_size) +
         (table_size == 0 || table_size > kMaxBitmapTableEntries) +
         ((BeAt<uint32_t>(b, 12) & ~kBitmapFlagsKnown) != 0) + (b[16] != 1) +
         (b[17] < kMinGranularityBits || b[17] > kMaxGranularityBits) +
         (name_size == 0 || name_size > kMaxBitmapName) + (BeAt<uint32_t>(b, 20) != 0);
}

// Whether the list may end, or go on with another entry, at `at`.
bool BitmapSearch::EndsHere(Bytes bytes, uint64_t at, bool size_known) const {
  if (at == bytes.size()) return true;
  if (at > bytes.size()) return false;
  if (Faults(bytes.subspan(at)) <= 1) return true;
  if (size_known) return false;
  uint64_t end = std::min<uint64_t>(AlignUp(at, image_.geometry.cluster_size), bytes.size());
  return AllZero(bytes.subspan(at, end - at));
}

std::optional<Bitmap> BitmapSearch::ReadEntry(Bytes bytes, uint64_t at, bool size_known) const {
  Bytes b = bytes.subspan(at);
  if (Faults(b) > 1) return std::nullopt;
  Bitmap bitmap;
  bitmap.table_offset = BeAt<uint64_t>(b, 0);
  bitmap.table_size = BeAt<uint32_t>(b, 8);
  bitmap.flags = BeAt<uint32_t>(b, 12);
  bitmap.type = b[16];
  bitmap.granularity_bits = b[17];
  const uint64_t name_size = BeAt<uint16_t>(b, 18), extra = BeAt<uint32_t>(b, 20);
  auto fits = [&](uint64_t skip, uint64_t length) {
    bitmap.length = AlignUp(kFixedSize + skip + length, 8);
    if (bitmap.length > b.size() || !EndsHere(bytes, at + bitmap.length, size_known)) return false;
    bitmap.name.assign(AsText(b.subspan(kFixedSize + skip, length)));
    return true;
  };
  // The entry's own lengths, where they lead to another entry or to the end.
  if (name_size <= kMaxBitmapName && fits(extra, name_size)) {
    bitmap.extra_data_size = static_cast<uint32_t>(extra);
  } else {
    uint64_t length = name_size == 0 ? 0 : 8;
    while (length <= kMaxBitmapName + 1 && !fits(0, length)) length += 8;
    if (length > kMaxBitmapName + 1) return std::nullopt;
  }
  bitmap.name.resize(std::min(bitmap.name.find('\0'), bitmap.name.size()));
  bitmap.name.resize(std::min<size_t>(bitmap.name.size(), kMaxBitmapName));
  return bitmap;
}

std::optional<BitmapList> BitmapSearch::Reread(uint64_t offset, uint64_t size,
                                               uint64_t count) const {
  const uint64_t cluster_size = image_.geometry.cluster_size;
  if (offset == 0 || !IsAligned(offset, cluster_size) || offset >= image_.file_size) {
    return std::nullopt;
  }
  const uint64_t room =
      std::min(AlignUp(image_.file_size, cluster_size) - offset, kMaxBitmapDirectoryBytes);
  if (count > kMaxBitmaps) count = 0;
  const bool size_known = size != 0 && size <= room;
  if (!size_known) {
    size = count == 0 ? room : std::min(room, AlignUp(count * kLongestEntry, cluster_size));
  }
  ByteVector bytes(size);
  if (!ReadPadded(bytes_, offset, bytes)) return std::nullopt;
  BitmapList list;
  list.offset = offset;
  while (list.size < size && list.entries.size() < (count == 0 ? kMaxBitmaps : count)) {
    auto bitmap = ReadEntry(bytes, list.size, size_known);
    if (!bitmap) break;
    bitmap->host_offset = offset + list.size;
    list.size += bitmap->length;
    list.entries.push_back(std::move(*bitmap));
  }
  const bool complete = count != 0   ? list.entries.size() == count
                        : size_known ? list.size == size
                                     : EndsHere(bytes, list.size, false);
  if (list.entries.empty() || !(complete || (size_known && list.size == size))) {
    return std::nullopt;
  }
  return list;
}

void BitmapSearch::ForEachOrphan(const std::function<bool(uint64_t)>& visit) const {
  uint64_t left = kBitmapSearchMaxOrphans;
  for (const CountRun& run : state_.leaks) {
    if (run.computed != 0 || run.stored != 1) continue;
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      if (left-- == 0 || !visit(c << image_.geometry.cluster_bits)) return;
    }
  }
}

std::optional<BitmapList> BitmapSearch::FindDirectory(uint64_t count) const {
  std::optional<BitmapList> found;
  bool several = false;
  unsigned candidates = 0;
  ForEachOrphan([&](uint64_t offset) {
    uint8_t fixed[kFixedSize];
    if (!ReadPadded(bytes_, offset, fixed) || Faults(fixed) != 0) return true;
    if (++candidates > kMaxCandidates) return false;
    auto list = Reread(offset, 0, count);
    if (!list || !std::ranges::all_of(list->entries, [&](const Bitmap& bitmap) {
          return !bitmap.name.empty() && bitmap.type == 1 && IsOrphanTable(bitmap);
        })) {
      return true;
    }
    for (uint64_t at = 0; at < list->size; at += image_.geometry.cluster_size) {
      if (!IsOrphan(offset + at)) return true;
    }
    several = found.has_value();
    found = std::move(list);
    return !several;
  });
  if (several || !found || candidates > kMaxCandidates) return std::nullopt;
  found->found = true;
  return found;
}

std::optional<uint64_t> BitmapSearch::FindTable(const Bitmap& bitmap) const {
  std::optional<uint64_t> found;
  bool several = false;
  const uint64_t bytes = uint64_t{bitmap.table_size} * 8;
  const uint64_t allocated = AlignUp(bytes, image_.geometry.cluster_size);
  if (bytes == 0 || allocated > kMaxTableClusters * image_.geometry.cluster_size) {
    return std::nullopt;
  }
  ForEachOrphan([&](uint64_t offset) {
    Bitmap trial = bitmap;
    trial.table_offset = offset;
    if (!IsOrphanTable(trial)) return true;
    ByteVector content(allocated);
    if (!ReadPadded(bytes_, offset, content) || AllZero(Bytes(content).first(bytes)) ||
        !AllZero(Bytes(content).subspan(bytes))) {
      return true;
    }
    several = found.has_value();
    found = offset;
    return !several;
  });
  return several ? std::nullopt : found;
}

}  // namespace imgfsck::qcow2
