// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/table_walker.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"

namespace imgfsck::qcow2 {
TableWalker::TableWalker(const Image& image, ClaimMap* claims, bool groups)
    : image_(image), g_(image.geometry), claims_(claims) {
  full_clusters_ = image.file_size >> g_.cluster_bits;
  shortest_stream_ = ShortestStream(g_, image.header.compression_type);
  fast_possible_ =
      groups && !g_.extended_l2 && !image.has_data_file() && image.ClusterCount() < ~uint32_t{0};
  // Anything that is not a plain, aligned data cluster below 2^32 clusters is bad for the fast
  // path.
  bad_mask_ = kL2Reserved | kCompressed | kZeroFlag | (kOffsetMask & (g_.cluster_size - 1)) |
              (kOffsetMask & ~((uint64_t{1} << (32 + g_.cluster_bits)) - 1));
}

bool Implausible(const Image& image, Bytes table) {
  constexpr uint64_t kFewest = 16;  // below that, single entries are reported
  const Geometry& g = image.geometry;
  uint64_t used = 0, invalid = 0;
  for (uint64_t begin = 0; begin < g.l2_entries; begin += kGroup) {
    uint64_t used_here = 0;
    for (uint64_t i = begin; i < std::min(begin + kGroup, g.l2_entries); ++i) {
      Entry entry = LoadEntry(g, table, i);
      if (entry.empty()) continue;
      ++used_here;
      invalid += EntryInvalid(image, entry);
    }
    used += used_here;
    // A perfect run before the first oddity: a table of which a part was overwritten.
    if (invalid == 0 && used_here == kGroup) return false;
  }
  return invalid >= kFewest && invalid * 4 > used * 3;
}

bool TableWalker::Prepare(const TableRef& table, Bytes bytes) {
  if (AllZero(bytes)) {
    if (empty_tables.size() < kMaxEmptyTables) empty_tables.push_back(table);
    return false;
  }
  return true;
}

// Whether 64 entries are plain data clusters inside the file; fills `scan`, of which clusters in a
// row need the first only.
bool TableWalker::ScanPlain(const uint8_t* entries, GroupScan* scan) const {
  const uint64_t first = LoadBe<uint64_t>(entries);
  // A look at two entries tells a table without order from one that is worth the comparison.
  if ((first & bad_mask_) == 0 && LoadBe<uint64_t>(entries + 8) == first + g_.cluster_size &&
      IsRun(entries, g_.cluster_size)) {
    const uint64_t cluster = (first & kOffsetMask) >> g_.cluster_bits;
    scan->any = scan->all = first;
    scan->breaks = 0;
    scan->cluster[0] = static_cast<uint32_t>(cluster);
    return cluster != 0 && cluster + kGroup <= full_clusters_;
  }
  ScanGroup(entries, bad_mask_, g_.cluster_bits, scan);
  return scan->any == 0 || (scan->bad == 0 && scan->min != 0 && scan->max < full_clusters_);
}

// Guest entries of the table that the disk has, whole or in part.
uint64_t TableWalker::EntriesOf(const TableRef& table) const {
  const uint64_t clusters = g_.ClustersOf(image_.LayerSize(table.layer));
  const uint64_t first = table.column * g_.l2_entries;
  return clusters <= first ? 0 : std::min(clusters - first, g_.l2_entries);
}

bool TableWalker::FastGroup(const TableRef& table, const uint8_t* entries) {
  GroupScan scan;
  if (!ScanPlain(entries, &scan)) return false;
  if (scan.any == 0) return true;
  if (table.active) {
    // COPIED on all of them when the table is used once, on none when it is shared.
    if (table.weight == 1 ? (scan.all & kCopied) == 0 : (scan.any & kCopied) != 0) return false;
    CountActiveGroup(scan);
  }
  ClaimGroup(scan, table.weight);
  return true;
}

void TableWalker::CountActiveGroup(const GroupScan& scan) {
  counts.allocated_clusters += kGroup;
  const uint64_t first = uint64_t{scan.cluster[0]} << g_.cluster_bits;
  const uint64_t last = scan.breaks == 0 ? scan.cluster[0] + kGroup - 1 : scan.cluster[kGroup - 1];
  counts.fragmented_clusters +=
      scan.breaks + (next_contiguous_ != 0 && next_contiguous_ != first ? 1 : 0);
  next_contiguous_ = (last + 1) << g_.cluster_bits;
}

void TableWalker::ClaimGroup(const GroupScan& scan, uint64_t weight) {
  if (scan.breaks == 0) {
    claims_->ClaimDataRun64(scan.cluster[0], weight);
  } else {
    claims_->ClaimData64(scan.cluster, weight);
  }
}

void TableWalker::ClaimStream(const Entry& entry, const EntryClaim& claim, uint64_t weight) {
  claims_->ClaimCompressed(claim.first, claim.last, weight);
  streams.Add(DecodeCompressed(g_, entry.descriptor).offset, shortest_stream_);
}

void TableWalker::CountActive(const Entry& entry, const EntryClaim& claim) {
  if (entry.compressed()) {
    ++counts.allocated_clusters;
    ++counts.compressed_clusters;
    ++counts.fragmented_clusters;
    return;
  }
  uint64_t host = entry.host();
  // In a data file guest cluster 0 lies at offset 0; QEMU counts it unless it is flagged as zero.
  bool first_of_data_file = entry.copied() && (g_.extended_l2 || !entry.zero_flag());
  bool allocated = claim.kind == EntryClaim::Kind::kCluster ||
                   (image_.has_data_file() && (host != 0 || first_of_data_file));
  if (!allocated) return;
  if (image_.has_data_file()) data_file_end = std::max(data_file_end, host + g_.cluster_size);
  ++counts.allocated_clusters;
  if (next_contiguous_ != 0 && host != next_contiguous_) ++counts.fragmented_clusters;
  next_contiguous_ = host + g_.cluster_size;
}

// COPIED promises that the cluster has one reference. Clusters in conflict are not judged here:
// whether the flag is right depends on how the conflict ends.
void TableWalker::JudgeCopied(const TableRef& table, uint64_t index, const EntryClaim& claim,
                              uint64_t weight) {
  if (claim.kind != EntryClaim::Kind::kCluster || claim.copied == (weight == 1)) return;
  if (!claim.copied && unflagged != nullptr && unflagged->size() < kMostUnflagged) {
    unflagged->push_back({table, index, claim.first});
    return;
  }
  findings->Add(EntryFinding(image_, table, index, Problem::kQcow2L2Copied,
                             claim.copied ? kCopiedSet : kCopiedClear));
}

void TableWalker::SlowEntry(const TableRef& table, Bytes bytes, uint64_t index) {
  Entry entry = LoadEntry(g_, bytes, index);
  if (entry.empty() && !image_.has_data_file()) return;
  JudgeEntry(image_, table, index, entry, findings);
  EntryClaim claim = ClaimOf(image_, entry);
  if (table.active) {
    CountActive(entry, claim);
    JudgeCopied(table, index, claim, table.weight);
  }
  if (claim.kind == EntryClaim::Kind::kCluster) claims_->ClaimData(claim.first, table.weight);
  if (claim.kind == EntryClaim::Kind::kSpan) ClaimStream(entry, claim, table.weight);
}

void TableWalker::WalkSingle(const TableRef& table, Bytes bytes) {
  next_contiguous_ = 0;
  if (!Prepare(table, bytes)) {
    if (!image_.has_data_file()) return;
  }
  bool checked_content = false;
  const uint64_t entries = EntriesOf(table);
  for (uint64_t i = 0; i < g_.l2_entries; i += kGroup) {
    uint64_t count = std::min(kGroup, g_.l2_entries - i);
    if (fast_possible_ && count == kGroup) {
      const Bytes group = bytes.subspan(8 * i, 8 * kGroup);
      if (i + kGroup <= entries ? FastGroup(table, group.data()) : AllZero(group)) continue;
    }
    // The first entry out of the ordinary: is this an L2 table at all? Nothing was claimed of a
    // table that fails this unless its first groups were in perfect order.
    if (!checked_content) {
      checked_content = true;
      if (Implausible(image_, bytes)) {
        implausible.push_back(table);
        return;
      }
    }
    for (uint64_t j = i; j < i + count; ++j) SlowEntry(table, bytes, j);
  }
}

// Keeps the order of equals. A column mostly has few tables, for which a general sort, which
// allocates memory, is the far greater part of the work.
template <class Less>
void TableWalker::SortDistinct(Less less) {
  constexpr size_t kFew = 32;
  if (distinct_.size() > kFew) {
    std::stable_sort(distinct_.begin(), distinct_.end(), less);
    return;
  }
  for (size_t i = 1; i < distinct_.size(); ++i) {
    for (size_t k = i; k > 0 && less(distinct_[k], distinct_[k - 1]); --k) {
      std::swap(distinct_[k], distinct_[k - 1]);
    }
  }
}

// 64 entries of a column where its tables agree on most of them, as a disk and its snapshots do.
// Where they do not, the entries are looked at one by one. False: nothing was done.
bool TableWalker::FastShared(const Column& column, uint64_t begin) {
  const TableRef& table = column.tables[column.representative];
  const uint8_t* own = &column.bytes[column.representative][8 * begin];
  GroupScan scan;
  if (!ScanPlain(own, &scan)) return false;

  uint64_t differs = 0;
  bool equal = true;
  for (size_t k = 0; k < column.tables.size(); ++k) {
    const uint8_t* theirs = &column.bytes[k][8 * begin];
    if (k == column.representative || std::memcmp(own, theirs, 8 * kGroup) == 0) continue;
    equal = false;
    for (uint64_t i = 0; i < kGroup; ++i) {
      const uint64_t other = LoadBe<uint64_t>(own + 8 * i) ^ LoadBe<uint64_t>(theirs + 8 * i);
      differs |= uint64_t{(other & ~kCopied) != 0} << i;
    }
  }
  if (scan.any == 0) return equal;  // a flag alone is worth a look
  if (table.active && (scan.any & kCopied) != 0) {
    // Only what no other table has is used once.
    for (uint64_t i = 0; i < kGroup; ++i) {
      if ((differs >> i & 1) == 0 && (LoadBe<uint64_t>(own + 8 * i) & kCopied) != 0) return false;
    }
  }

  if (table.active) CountActiveGroup(scan);
  if (differs == 0) {
    ClaimGroup(scan, column.weight);
    return true;
  }
  for (uint64_t i = 0; i < kGroup; ++i) {
    if ((differs >> i & 1) == 0) {
      const uint64_t cluster = scan.breaks == 0 ? scan.cluster[0] + i : scan.cluster[i];
      claims_->ClaimData(cluster, column.weight);
    } else {
      WalkColumnIndex(column.tables, column.bytes, begin + i, true);
    }
  }
  return true;
}

void TableWalker::WalkColumnIndex(std::span<const TableRef> tables, std::span<const Bytes> bytes,
                                  uint64_t index, bool counted) {
  distinct_.clear();
  for (size_t k = 0; k < tables.size(); ++k) {
    Entry entry = LoadEntry(g_, bytes[k], index);
    if (entry.empty() && !image_.has_data_file()) continue;
    distinct_.push_back({entry, tables[k].weight, k, tables[k].active});
  }
  // Entries that differ in COPIED or in the zero flag alone use the same cluster.
  auto key = [](const Distinct& d) {
    return d.entry.compressed() ? d.entry.descriptor & ~kCopied : d.entry.host();
  };
  SortDistinct([&](const Distinct& a, const Distinct& b) { return key(a) < key(b); });
  for (size_t begin = 0, end; begin < distinct_.size(); begin = end) {
    uint64_t weight = 0;
    for (end = begin; end < distinct_.size() && key(distinct_[end]) == key(distinct_[begin]);
         ++end) {
      weight += distinct_[end].weight;
    }
    EntryClaim claim = ClaimOf(image_, distinct_[begin].entry);
    for (size_t d = begin; d < end; ++d) {
      const TableRef& table = tables[distinct_[d].first];
      JudgeEntry(image_, table, index, distinct_[d].entry, findings);
      if (!distinct_[d].active) continue;
      if (!counted) CountActive(distinct_[d].entry, claim);
      JudgeCopied(table, index, ClaimOf(image_, distinct_[d].entry), weight);
    }
    if (claim.kind == EntryClaim::Kind::kCluster) claims_->ClaimData(claim.first, weight);
    if (claim.kind == EntryClaim::Kind::kSpan) {
      ClaimStream(distinct_[begin].entry, claim, weight);
    }
  }
}

void TableWalker::WalkColumn(std::span<const TableRef> tables, std::span<const Bytes> bytes) {
  next_contiguous_ = 0;
  std::vector<TableRef> plausible_tables;
  std::vector<Bytes> plausible_bytes;
  for (size_t k = 0; k < tables.size(); ++k) {
    if (!Prepare(tables[k], bytes[k])) continue;
    if (Implausible(image_, bytes[k])) {
      implausible.push_back(tables[k]);
      continue;
    }
    plausible_tables.push_back(tables[k]);
    plausible_bytes.push_back(bytes[k]);
  }
  if (plausible_tables.empty()) return;
  if (plausible_tables.size() == 1) {
    WalkSingle(plausible_tables[0], plausible_bytes[0]);
    return;
  }
  Column column{plausible_tables, plausible_bytes, 0, 0};
  uint64_t fast_end = fast_possible_ ? g_.l2_entries : 0;
  for (size_t k = 0; k < plausible_tables.size(); ++k) {
    if (plausible_tables[k].active) column.representative = k;
    column.weight += plausible_tables[k].weight;
    fast_end = std::min(fast_end, EntriesOf(plausible_tables[k]));
  }
  for (uint64_t i = 0; i < g_.l2_entries; i += kGroup) {
    const uint64_t count = std::min(kGroup, g_.l2_entries - i);
    if (i + kGroup <= fast_end && FastShared(column, i)) continue;
    for (uint64_t j = i; j < i + count; ++j) {
      WalkColumnIndex(plausible_tables, plausible_bytes, j, false);
    }
  }
}

}  // namespace imgfsck::qcow2
