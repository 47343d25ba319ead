// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/side_tables.h"

#include <algorithm>

#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/luks.h"
#include "formats/qcow2/snapshots.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kMostL1Clusters = 1 << 16;  // of listed snapshots

class SideSearch {
 public:
  SideSearch(const ByteSource& source, const ScanResult& scan, const Trial& trial)
      : source_(source), scan_(scan), trial_(trial), g_(trial.image->geometry) {}

  SideTables Run() {
    for (uint64_t offset : scan_.snapshot_tables) {
      if (uint32_t count = Free(offset) ? CountSnapshots(offset) : 0; count > side_.nb_snapshots) {
        side_.nb_snapshots = count;
        side_.snapshots_offset = offset;
      }
    }
    for (uint64_t offset : scan_.bitmap_directories) {
      if (Free(offset)) ReadDirectory(offset);
    }
    for (uint64_t offset : scan_.luks_headers) {
      if (!side_.encryption && Free(offset)) ReadLuks(offset);
    }
    return std::move(side_);
  }

 private:
  // At a cluster's beginning, counted, used by nothing else.
  bool Free(uint64_t offset) const {
    if (offset == 0 || !IsAligned(offset, g_.cluster_size)) return false;
    uint64_t cluster = offset >> g_.cluster_bits;
    auto run =
        std::upper_bound(trial_.leaks.begin(), trial_.leaks.end(), cluster,
                         [](uint64_t c, const CountRun& r) { return c < r.cluster + r.length; });
    return run != trial_.leaks.end() && run->cluster <= cluster && run->computed == 0;
  }

  uint32_t CountSnapshots(uint64_t offset) const {
    uint32_t count = 0;
    uint64_t at = offset;
    while (count < kMaxSnapshots) {
      auto entry = ParseSnapshotAt(source_, at);
      if (!entry || entry->id.empty() || entry->l1_size == 0 || !Free(entry->l1_table_offset) ||
          uint64_t{entry->l1_size} * 8 > kMaxL1Bytes || entry->date_nsec >= 1000000000) {
        break;
      }
      ++count;
      at = AlignUp(at + entry->length, 8);
    }
    return count;
  }

  void ReadDirectory(uint64_t offset) {
    BitmapsExtension extension;
    extension.directory_offset = offset;
    extension.nb_bitmaps = kMaxBitmaps;
    extension.directory_size = std::min(kMaxBitmapDirectoryBytes, source_.Size() - offset);
    BitmapDirectory directory = ParseBitmapDirectory(source_, g_, extension);
    uint32_t count = 0;
    uint64_t size = 0;
    for (const Bitmap& bitmap : directory.entries) {
      if (!Free(bitmap.table_offset) || bitmap.type != 1 || bitmap.name.empty()) break;
      ++count;
      size += bitmap.length;
    }
    if (count <= bitmaps_) return;
    bitmaps_ = extension.nb_bitmaps = count;
    extension.directory_size = size;
    side_.bitmaps = EncodeBitmapsExtension(extension);
  }

  void ReadLuks(uint64_t offset) {
    auto luks = ParseLuks(source_, offset);
    uint64_t length = luks ? uint64_t{luks->payload_sector} * kSector : 0;
    if (!luks || !luks->magic_ok || length < kLuksHeaderSize ||
        !RangeFits(offset, length, AlignUp(source_.Size(), g_.cluster_size))) {
      return;
    }
    ByteVector data(kEncryptionExtLength);
    PutBe(data, 0, offset);
    PutBe(data, 8, length);
    side_.encryption = std::move(data);
  }

  const ByteSource& source_;
  const ScanResult& scan_;
  const Trial& trial_;
  const Geometry& g_;
  uint32_t bitmaps_ = 0;
  SideTables side_;
};

}  // namespace

SideTables FindSideTables(const ByteSource& source, const ScanResult& scan, const Trial& trial) {
  return SideSearch(source, scan, trial).Run();
}

std::vector<uint64_t> SnapshotL1Clusters(const ByteSource& source, const ScanResult& scan,
                                         Lens& lens, const Layout& layout) {
  Geometry g = layout.geometry();
  std::vector<uint64_t> clusters;
  for (uint64_t table : scan.snapshot_tables) {
    if (!IsAligned(table, g.cluster_size) || lens.Count(layout, table >> g.cluster_bits) != 1) {
      continue;
    }
    uint64_t at = table;
    for (uint64_t i = 0; i < kMaxSnapshots && clusters.size() < kMostL1Clusters; ++i) {
      auto entry = ParseSnapshotAt(source, at);
      if (!entry || entry->id.empty() || entry->l1_size == 0 ||
          !IsAligned(entry->l1_table_offset, g.cluster_size) ||
          uint64_t{entry->l1_size} * 8 > kMaxL1Bytes ||
          !RangeFits(entry->l1_table_offset, uint64_t{entry->l1_size} * 8,
                     AlignUp(source.Size(), g.cluster_size))) {
        break;
      }
      uint64_t first = entry->l1_table_offset >> g.cluster_bits;
      uint64_t count = g.ClustersOf(uint64_t{entry->l1_size} * 8);
      for (uint64_t c = first; c < first + count && clusters.size() < kMostL1Clusters; ++c) {
        clusters.push_back(c);
      }
      at = AlignUp(at + entry->length, 8);
    }
  }
  return clusters;
}

}  // namespace imgfsck::qcow2
