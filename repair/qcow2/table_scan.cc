// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/table_scan.h"

#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMaxTables = 1 << 16;      // L2 tables kept
constexpr size_t kMaxL1Clusters = 1 << 12;  // clusters that may belong to an L1 table

// Aligned offsets inside the file, in no entry twice; what an L1 table looks like before anything
// is known of where it leads to.
bool ShapedLikeL1(const Image& image, Bytes cluster) {
  uint64_t used = 0, last = 0;
  for (size_t i = 0; i + 8 <= cluster.size(); i += 8) {
    uint64_t value = LoadBe<uint64_t>(&cluster[i]);
    if (value == 0) continue;
    uint64_t offset = value & kOffsetMask;
    if ((value & kL1Reserved) != 0 || offset == 0 || offset == last || offset >= image.file_size ||
        !IsAligned(offset, image.geometry.cluster_size)) {
      return false;
    }
    last = offset;
    ++used;
  }
  return used > 0;
}

class Scan {
 public:
  Scan(const ByteSource& bytes, const CheckState& state, const Orphans& orphans,
       ScannedTables* result)
      : bytes_(bytes), state_(state), image_(*state.image), orphans_(orphans), result_(result) {}

  Status Run() {
    const unsigned bits = image_.geometry.cluster_bits;
    ByteVector cluster(image_.geometry.cluster_size);
    std::vector<HostRange> bad;
    uint64_t hole_end = 0;
    for (uint64_t c = 1; c < image_.ClusterCount(); ++c) {
      if (state_.claims().IsUsed(c)) continue;
      IMG_RETURN_IF_ERROR(CheckStop());
      uint64_t offset = c << bits;
      if (offset + cluster.size() <= hole_end) continue;
      auto extent = bytes_.ExtentAt(offset);
      if (extent && extent->hole) {
        hole_end = extent->offset + extent->length;
        if (offset + cluster.size() <= hole_end) continue;
      }
      bad.clear();
      ReadTolerant(bytes_, offset, cluster, &bad);
      if (bad.empty()) Look(c, cluster);
    }
    return FindSlots();
  }

 private:
  void Look(uint64_t c, Bytes cluster) {
    FoundTable table = Appraise(image_, orphans_, cluster);
    table.offset = c << image_.geometry.cluster_bits;
    table.counted = orphans_.Lone(c);
    if (table.reclaims > 0 && table.reclaims * 4 >= table.entries) {
      if (result_->tables.size() < kMaxTables) {
        result_->tables.emplace(table.offset, table);
      } else {
        result_->truncated = true;
      }
    }
    if (l1_clusters_.size() < kMaxL1Clusters && ShapedLikeL1(image_, cluster)) {
      l1_clusters_.push_back(table.offset);
    }
  }

  // Where tables stand that list the L2 tables found: an L1 table that was moved, or a snapshot's
  // that is gone. Only its first cluster says which slot an entry is.
  Status FindSlots() {
    ByteVector cluster(image_.geometry.cluster_size);
    std::vector<HostRange> bad;
    for (uint64_t offset : l1_clusters_) {
      ReadTolerant(bytes_, offset, cluster, &bad);
      uint64_t first_slot = FirstSlot(offset);
      for (uint64_t i = 0; i < cluster.size() / 8; ++i) {
        const uint64_t led_to = LoadBe<uint64_t>(&cluster[8 * i]) & kOffsetMask;
        auto table = result_->tables.find(led_to);
        if (table == result_->tables.end()) continue;
        std::vector<uint64_t>& slots = table->second.slots;
        if (std::ranges::find(slots, first_slot + i) == slots.end())
          slots.push_back(first_slot + i);
      }
      auto own = result_->tables.find(offset);
      if (own != result_->tables.end() && LeadsToTables(cluster)) own->second.bare = true;
      IMG_RETURN_IF_ERROR(CheckStop());
    }
    return Ok();
  }

  // What the first entries lead to is tables again: the table is none of the guest's data.
  bool LeadsToTables(Bytes table) const {
    constexpr uint64_t kLookedAt = 8;
    const Geometry& g = image_.geometry;
    ByteVector bytes(g.cluster_size);
    std::vector<HostRange> bad;
    uint64_t used = 0, tables = 0;
    for (uint64_t i = 0; i < table.size() / 8 && used < kLookedAt; ++i) {
      const uint64_t offset = LoadBe<uint64_t>(&table[8 * i]) & kOffsetMask;
      if (offset == 0) continue;
      ++used;
      ReadTolerant(bytes_, offset, bytes, &bad);
      uint64_t valid = 0, invalid = 0;
      for (uint64_t k = 0; k < g.l2_entries && invalid == 0; ++k) {
        const Entry entry = LoadEntry(g, bytes, k);
        invalid += EntryInvalid(image_, entry);
        valid += !entry.empty();
      }
      tables += invalid == 0 && valid > 0;
    }
    return used > 0 && tables * 2 >= used;
  }

  // A table of several clusters: those before it, one after the other, look like L1 too.
  uint64_t FirstSlot(uint64_t offset) const {
    uint64_t size = image_.geometry.cluster_size, before = 0;
    while (std::binary_search(l1_clusters_.begin(), l1_clusters_.end(), offset - size)) {
      offset -= size;
      ++before;
    }
    return before * (size / 8);
  }

  const ByteSource& bytes_;
  const CheckState& state_;
  const Image& image_;
  const Orphans& orphans_;
  ScannedTables* result_;
  std::vector<uint64_t> l1_clusters_;  // ascending
};

}  // namespace

Status ScanForTables(const ByteSource& image, const CheckState& state, const Orphans& orphans,
                     ScannedTables* result) {
  return Scan(image, state, orphans, result).Run();
}

}  // namespace imgfsck::qcow2
