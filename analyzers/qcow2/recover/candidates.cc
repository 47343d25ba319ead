// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/candidates.h"

#include <algorithm>
#include <set>

#include "analyzers/qcow2/recover/l1_search.h"
#include "analyzers/qcow2/recover/side_tables.h"
#include "base/interrupt.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostTrees = 64, kMostTried = 1 << 16, kMostFound = 4096,
                 kMostBlocksKnown = 1 << 16;

void BestFirst(std::vector<Candidate>* candidates) {
  std::stable_sort(candidates->begin(), candidates->end(),
                   [](const Candidate& a, const Candidate& b) { return a.Worth() > b.Worth(); });
}

class TreeSearch {
 public:
  TreeSearch(Lens& lens, const Image& stored) : lens_(lens), stored_(stored.header) {}

  void At(uint64_t offset) {
    if (offset < kSector || offset >= lens_.file_size() || !IsAligned(offset, kSector)) return;
    uint64_t block = lens_.reader().Word(offset) & ~kRefcountTableReserved;
    if (block == 0 || block >= lens_.file_size()) return;
    uint64_t start = lens_.reader().Word(block);  // the counts of the first clusters
    for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; ++bits) {
      if (!IsAligned(offset | block, uint64_t{1} << bits)) break;
      for (unsigned order = 0; order <= kMaxRefcountOrder; ++order) {
        if (CountsHeader(start, order)) Try(offset, bits, order);
      }
    }
  }

  std::vector<Candidate> Take() {
    BestFirst(&found_);
    if (found_.size() > kMostTrees) found_.resize(kMostTrees);
    return std::move(found_);
  }

 private:
  // The first count of a block of that width is 1.
  static bool CountsHeader(uint64_t start, unsigned order) {
    if (order >= 3) return start >> (64 - (1u << order)) == 1;
    return (start >> 56 & ((1u << (1u << order)) - 1)) == 1;
  }

  void Try(uint64_t offset, unsigned bits, unsigned order) {
    if (found_.size() >= kMostFound || ++tried_ > kMostTried) return;
    Layout layout;
    layout.cluster_bits = bits;
    layout.refcount_order = order;
    layout.rt_offset = offset;
    uint64_t size = uint64_t{1} << bits;
    uint64_t needed = lens_.TableClusters(layout);
    std::vector<uint64_t> lengths = {needed};
    uint64_t declared = stored_.refcount_table_clusters;
    if (declared > needed && declared * size <= kMaxRefcountTableBytes &&
        RangeFits(offset, declared * size, AlignUp(lens_.file_size(), size))) {
      lengths.insert(lengths.begin(), declared);
    }
    for (uint64_t length : lengths) {
      if (length * size > kMaxRefcountTableBytes) continue;
      layout.rt_clusters = length;
      Look look = lens_.Tree(layout);
      if (!look.Mostly() || look.asked < 3) continue;
      if (std::ranges::any_of(found_, [&](const auto& c) { return c.layout == layout; })) return;
      found_.push_back({layout, look, {}});
      return;
    }
  }

  Lens& lens_;
  const Header& stored_;
  size_t tried_ = 0;
  std::vector<Candidate> found_;
};

// Layouts to look for L1 tables under: the trees', or one a cluster size; with and without extended
// L2 entries, and an external data file where the stored header speaks of one.
std::vector<Candidate> Grounds(const Image& stored, const std::vector<Candidate>& trees) {
  std::vector<Candidate> grounds = trees;
  if (trees.empty()) {
    for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; ++bits) {
      Candidate c;
      c.layout.cluster_bits = bits;
      grounds.push_back(c);
    }
  }
  size_t count = grounds.size();
  for (size_t i = 0; i < count; ++i) {
    if (grounds[i].layout.cluster_bits < kMinClusterBitsExtendedL2) continue;
    grounds.push_back(grounds[i]);
    grounds.back().layout.extended_l2 = true;
  }
  count = stored.has_data_file() || stored.data_file_name ? grounds.size() : 0;
  for (size_t i = 0; i < count; ++i) {
    grounds.push_back(grounds[i]);
    grounds.back().layout.data_file = true;
  }
  return grounds;
}

// Entries of the stored L1 table: as it says, and as its size asks for.
std::vector<uint64_t> StoredEntries(Lens& lens, const Header& stored, const Layout& layout) {
  Geometry g = layout.geometry();
  uint64_t needed = g.MinL1Entries(stored.size);
  auto fits = [&](uint64_t entries) {
    return entries > 0 && entries * 8 <= kMaxL1Bytes &&
           RangeFits(stored.l1_table_offset, entries * 8,
                     AlignUp(lens.file_size(), g.cluster_size));
  };
  std::vector<uint64_t> entries;
  if (stored.l1_size >= needed && fits(stored.l1_size)) entries.push_back(stored.l1_size);
  if (needed <= kMaxL1Bytes / 8 && fits(needed) && stored.l1_size != needed) {
    entries.push_back(needed);
  }
  // The size may be what is damaged.
  if (stored.l1_size < needed && fits(stored.l1_size)) entries.push_back(stored.l1_size);
  return entries;
}

}  // namespace

std::vector<Candidate> FindTrees(Lens& lens, const Image& stored, const ScanResult* scan) {
  TreeSearch search(lens, stored);
  search.At(stored.header.refcount_table_offset);
  // Where a new image has it: in its second cluster.
  for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; ++bits) {
    search.At(uint64_t{1} << bits);
  }
  if (scan != nullptr) {
    for (uint64_t offset : scan->refcount_tables) {
      search.At(offset);
      if (!CheckStop()) break;
    }
  }
  return search.Take();
}

Result<std::vector<Candidate>> StoredMaps(Lens& lens, const Image& stored,
                                          const std::vector<Candidate>& trees) {
  std::vector<Candidate> found;
  for (const Candidate& ground : Grounds(stored, trees)) {
    IMG_RETURN_IF_ERROR(CheckStop());
    if (!IsAligned(stored.header.l1_table_offset, uint64_t{1} << ground.layout.cluster_bits))
      continue;
    for (uint64_t entries : StoredEntries(lens, stored.header, ground.layout)) {
      Candidate c = ground;
      c.layout.l1_offset = stored.header.l1_table_offset;
      c.layout.l1_entries = entries;
      c.map = lens.Map(c.layout);
      if (c.map.table.Mostly()) found.push_back(c);
    }
  }
  BestFirst(&found);
  return found;
}

Result<std::vector<Candidate>> ScannedMaps(Lens& lens, const Image& stored, const ScanResult& scan,
                                           const std::vector<Candidate>& trees) {
  std::vector<Candidate> found;
  for (const Candidate& ground : Grounds(stored, trees)) {
    IMG_RETURN_IF_ERROR(CheckStop());
    const Layout& layout = ground.layout;
    Geometry g = layout.geometry();
    std::set<uint64_t> known;
    if (layout.has_tree()) {
      uint64_t first = layout.rt_offset >> g.cluster_bits;
      for (uint64_t i = 0; i < layout.rt_clusters; ++i) known.insert(first + i);
      uint64_t entries =
          std::min<uint64_t>(layout.rt_clusters * g.cluster_size / 8, kMostBlocksKnown);
      for (uint64_t i = 0; i < entries; ++i) {
        if (uint64_t block = lens.reader().Word(layout.rt_offset + 8 * i); block != 0) {
          known.insert(block >> g.cluster_bits);
        }
      }
      for (uint64_t c : SnapshotL1Clusters(lens.reader().source(), scan, lens, layout)) {
        known.insert(c);
      }
    }
    uint64_t wanted = g.cluster_bits == stored.header.cluster_bits && stored.header.magic == kMagic
                          ? std::min(g.MinL1Entries(stored.header.size), kMaxL1Bytes / 8)
                          : 0;
    IMG_ASSIGN_OR_RETURN(auto tables, FindL1Tables(lens, scan, layout, known, wanted));
    for (const L1Candidate& table : tables)
      found.push_back({table.layout, ground.tree, table.look});
  }
  BestFirst(&found);
  return found;
}

}  // namespace imgfsck::qcow2
