// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/lens.h"

#include <algorithm>
#include <array>

#include "analyzers/qcow2/refcounts.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {
namespace {

// How much of a structure is looked at.
constexpr uint64_t kMostBlocks = 64, kMostClusters = 16, kMostL1Entries = 1 << 16, kMostTables = 16,
                   kMostTableBytes = 64 * kKiB, kMostEntries = 256;

}  // namespace

const PageReader::Page& PageReader::Get(uint64_t number) {
  Page& page = pages_[number % kPages];
  if (page.number == number) return page;
  page.number = number;
  page.bytes.assign(kPage, 0);
  std::vector<HostRange> bad;
  ReadTolerant(source_, number * kPage, page.bytes, &bad);
  return page;
}

void PageReader::Read(uint64_t offset, MutableBytes buffer) {
  while (!buffer.empty()) {
    uint64_t at = offset % kPage, step = std::min<uint64_t>(kPage - at, buffer.size());
    const Page& page = Get(offset / kPage);
    std::copy_n(page.bytes.begin() + static_cast<ptrdiff_t>(at), step, buffer.begin());
    buffer = buffer.subspan(step);
    offset += step;
  }
}

uint64_t PageReader::Word(uint64_t offset) {
  return LoadBe<uint64_t>(&Get(offset / kPage).bytes[offset % kPage]);
}

uint64_t Lens::TableClusters(const Layout& layout) const {
  Geometry g = layout.geometry();
  uint64_t blocks = DivRoundUp(g.ClustersOf(size_), g.block_entries);
  return std::max<uint64_t>(1, g.ClustersOf(blocks * 8));
}

uint64_t Lens::Count(const Layout& layout, uint64_t cluster) {
  Geometry g = layout.geometry();
  uint64_t index = cluster / g.block_entries;
  if (!layout.has_tree() || index >= layout.rt_clusters * g.cluster_size / 8) return 0;
  uint64_t block = reader_.Word(layout.rt_offset + 8 * index) & ~kRefcountTableReserved;
  if (!InFile(layout, block)) return 0;
  uint64_t entry = cluster % g.block_entries;
  uint64_t byte = AlignDown((entry << g.refcount_order) / 8, 8);
  std::array<uint8_t, 8> word{};
  reader_.Read(block + byte, word);
  return LoadRefcount(word, g.refcount_order, entry - ((byte * 8) >> g.refcount_order));
}

Look Lens::Tree(const Layout& layout) {
  Geometry g = layout.geometry();
  Look look;
  if (!InFile(layout, layout.rt_offset) ||
      !InFile(layout, reader_.Word(layout.rt_offset) & ~kRefcountTableReserved)) {
    look.Ask(false);
    return look;
  }
  look.Ask(Count(layout, 0) == 1);
  if (look.held == 0) return look;  // the header's own count: without it there is no beginning
  uint64_t first = layout.rt_offset >> g.cluster_bits;
  for (uint64_t i = 0; i < std::min(layout.rt_clusters, kMostClusters); ++i) {
    look.Ask(Count(layout, first + i) == 1);
  }
  uint64_t entries = DivRoundUp(g.ClustersOf(size_), g.block_entries);
  for (uint64_t i = 0; i < std::min(entries, kMostBlocks); ++i) {
    uint64_t entry = reader_.Word(layout.rt_offset + 8 * i);
    if (entry == 0) continue;
    look.Ask((entry & kRefcountTableReserved) == 0 && InFile(layout, entry) &&
             Count(layout, entry >> g.cluster_bits) == 1);
  }
  return look;
}

bool Lens::PlausibleL1(const Layout& layout, uint64_t value) {
  uint64_t offset = value & kOffsetMask;
  if ((value & kL1Reserved) != 0 || !InFile(layout, offset)) return false;
  if (!layout.has_tree()) return true;
  uint64_t count = Count(layout, offset >> layout.cluster_bits);
  return count != 0 && ((value & kCopied) != 0) == (count == 1);
}

bool Lens::PlausibleL2(const Layout& layout, const Entry& entry, uint64_t guest) {
  Geometry g = layout.geometry();
  if (layout.extended_l2 && (entry.alloc_bits() & entry.zero_bits()) != 0) return false;
  uint64_t offset = entry.host();
  if (entry.compressed()) {
    offset = DecodeCompressed(g, entry.descriptor).offset;
    if (entry.copied() || layout.data_file || offset < g.cluster_size || offset >= size_ ||
        entry.subclusters != 0 || (entry.descriptor & CompressedReserved(g)) != 0) {
      return false;
    }
    return !layout.has_tree() || Count(layout, offset >> g.cluster_bits) != 0;
  }
  if ((entry.descriptor & kL2Reserved) != 0) return false;
  if (layout.extended_l2 && entry.zero_flag()) return false;
  if (layout.data_file) return offset == guest || (offset == 0 && !entry.copied());
  if (offset == 0) {
    return !entry.copied() && (layout.extended_l2 ? entry.alloc_bits() == 0 : entry.zero_flag());
  }
  if (!InFile(layout, offset)) return false;
  if (!layout.has_tree()) return true;
  uint64_t count = Count(layout, offset >> g.cluster_bits);
  return count != 0 && entry.copied() == (count == 1);
}

void Lens::LookAtTable(const Layout& layout, uint64_t index, uint64_t table, Look* look) {
  Geometry g = layout.geometry();
  ByteVector bytes(std::min(g.cluster_size, kMostTableBytes));
  std::vector<HostRange> bad;
  ReadTolerant(reader_.source(), table, bytes, &bad);
  uint64_t seen = 0;
  for (uint64_t i = 0; i < bytes.size() / g.l2_entry_size && seen < kMostEntries; ++i) {
    Entry entry = LoadEntry(g, bytes, i);
    if (entry.empty()) continue;
    ++seen;
    uint64_t guest = SaturatingMul(index * g.l2_entries + i, g.cluster_size);
    look->Ask(PlausibleL2(layout, entry, guest));
  }
}

MapLook Lens::Map(const Layout& layout) {
  Geometry g = layout.geometry();
  MapLook look;
  if (!InFile(layout, layout.l1_offset) || layout.l1_entries == 0) {
    look.table.Ask(false);
    return look;
  }
  uint64_t clusters = g.ClustersOf(layout.l1_entries * 8);
  uint64_t first = layout.l1_offset >> g.cluster_bits;
  for (uint64_t i = 0; i < std::min(clusters, kMostClusters); ++i) {
    look.table.Ask(!layout.has_tree() || Count(layout, first + i) == 1);
  }
  std::vector<std::pair<uint64_t, uint64_t>> tables;  // index, offset
  for (uint64_t i = 0; i < std::min(layout.l1_entries, kMostL1Entries); ++i) {
    uint64_t value = reader_.Word(layout.l1_offset + 8 * i);
    if (value == 0) continue;
    bool good = PlausibleL1(layout, value);
    look.table.Ask(good);
    if (good) tables.emplace_back(i, value & kOffsetMask);
    if (look.table.asked > 64 && look.table.held * 4 < look.table.asked) return look;
  }
  uint64_t step = std::max<uint64_t>(1, tables.size() / kMostTables);
  for (size_t i = 0; i < tables.size(); i += step) {
    LookAtTable(layout, tables[i].first, tables[i].second, &look.below);
  }
  return look;
}

}  // namespace imgfsck::qcow2
