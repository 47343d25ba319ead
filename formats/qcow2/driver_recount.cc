// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_recount.h"

#include <algorithm>

#include "base/interrupt.h"

namespace imgfsck::qcow2 {
namespace {

// Counts, and refuses a cluster that is claimed in two ways that exclude each other.
class Counter {
 public:
  explicit Counter(Core* core)
      : core_(*core),
        g_(core->g()),
        counts_(g_.ClustersOf(core->file.Size())),
        seen_(counts_.size()),
        fixed_(counts_.size()) {}

  Status Metadata(uint64_t offset, uint64_t length) {
    return ForClusters(offset, length, [&](uint64_t cluster) -> Status {
      if (counts_[cluster] != 0) return Twice(cluster);
      fixed_[cluster] = true;
      ++counts_[cluster];
      return Ok();
    });
  }

  Status Layer(uint64_t l1_offset, uint64_t entries) {
    seen_.assign(seen_.size(), false);
    ByteVector l1(entries * 8);
    IMG_RETURN_IF_ERROR(core_.file.Read(l1_offset, l1));
    for (size_t at = 0; at < l1.size(); at += 8) {
      uint64_t offset = LoadBe<uint64_t>(&l1[at]) & kOffsetMask;
      if (offset == 0) continue;
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_RETURN_IF_ERROR(Exclusive(offset));
      IMG_ASSIGN_OR_RETURN(auto table, core_.tables.Get(offset));
      for (uint64_t i = 0; i < g_.l2_entries; ++i) {
        IMG_RETURN_IF_ERROR(OneEntry(table->At(i)));
      }
    }
    return Ok();
  }

  std::vector<uint32_t> Take() { return std::move(counts_); }

 private:
  template <class Visit>
  Status ForClusters(uint64_t offset, uint64_t length, const Visit& visit) {
    uint64_t end = g_.ClustersOf(SaturatingAdd(offset, length));
    if (end > counts_.size()) return DamagedAt("a reference past the end of the file", offset);
    for (uint64_t c = offset / g_.cluster_size; c < end; ++c) IMG_RETURN_IF_ERROR(visit(c));
    return Ok();
  }

  Error Twice(uint64_t cluster) const {
    return DamagedAt("a cluster is used for two things", cluster * g_.cluster_size);
  }

  // A cluster that may appear once a layer.
  Status Exclusive(uint64_t offset) {
    if (!IsAligned(offset, g_.cluster_size)) return DamagedAt("an unaligned reference", offset);
    return ForClusters(offset, 1, [&](uint64_t cluster) -> Status {
      if (fixed_[cluster] || seen_[cluster]) return Twice(cluster);
      seen_[cluster] = true;
      ++counts_[cluster];
      return Ok();
    });
  }

  Status OneEntry(const Entry& entry) {
    if (entry.compressed()) {
      CompressedSpan span = DecodeCompressed(g_, entry.descriptor);
      // The last stream's sectors may overhang the file.
      uint64_t end = std::min(span.end(), AlignUp(core_.file.Size(), g_.cluster_size));
      if (span.offset >= end) return DamagedAt("a stream past the end of the file", span.offset);
      return ForClusters(span.offset, end - span.offset, [&](uint64_t cluster) -> Status {
        if (fixed_[cluster] || seen_[cluster]) return Twice(cluster);
        ++counts_[cluster];
        return Ok();
      });
    }
    if (entry.host() == 0 || core_.context.data_file) return Ok();
    return Exclusive(entry.host());
  }

  Core& core_;
  const Geometry& g_;
  std::vector<uint32_t> counts_;
  std::vector<bool> seen_, fixed_;
};

}  // namespace

Result<std::vector<uint32_t>> CountReferences(Core* core) {
  const Image& image = *core->image;
  Counter counter(core);
  IMG_RETURN_IF_ERROR(counter.Metadata(0, 1));
  IMG_RETURN_IF_ERROR(counter.Metadata(core->l1_offset, core->l1.size() * 8));
  if (!core->snapshots.empty()) {
    IMG_RETURN_IF_ERROR(
        counter.Metadata(image.snapshots.offset, image.snapshots.end - image.snapshots.offset));
  }
  for (const Snapshot& s : core->snapshots) {
    IMG_RETURN_IF_ERROR(counter.Metadata(s.l1_table_offset, uint64_t{s.l1_size} * 8));
  }
  if (image.encryption) {
    IMG_RETURN_IF_ERROR(counter.Metadata(image.encryption->offset, image.encryption->length));
  }
  if (image.bitmaps_extension && core->header.Autoclear(kAutoclearBitmaps)) {
    IMG_RETURN_IF_ERROR(counter.Metadata(image.bitmaps.offset, image.bitmaps.size));
    for (const Bitmap& b : image.bitmaps.entries) {
      IMG_RETURN_IF_ERROR(counter.Metadata(b.table_offset, uint64_t{b.table_size} * 8));
      ByteVector table(uint64_t{b.table_size} * 8);
      IMG_RETURN_IF_ERROR(core->file.Read(b.table_offset, table));
      for (size_t at = 0; at < table.size(); at += 8) {
        uint64_t offset = LoadBe<uint64_t>(&table[at]) & kOffsetMask;
        if (offset != 0) IMG_RETURN_IF_ERROR(counter.Metadata(offset, 1));
      }
    }
  }
  IMG_RETURN_IF_ERROR(counter.Layer(core->l1_offset, core->l1.size()));
  for (const Snapshot& s : core->snapshots) {
    IMG_RETURN_IF_ERROR(counter.Layer(s.l1_table_offset, s.l1_size));
  }
  return counter.Take();
}

Status RepairDirty(Core* core) {
  IMG_ASSIGN_OR_RETURN(std::vector<uint32_t> counts, CountReferences(core));
  IMG_RETURN_IF_ERROR(core->refcounts.Rebuild(counts));
  IMG_RETURN_IF_ERROR(FixCopied(core));
  IMG_RETURN_IF_ERROR(core->tables.WriteDirty());
  IMG_RETURN_IF_ERROR(core->file.Sync());
  return core->WriteL1();
}

Status FixCopied(Core* core) {
  const uint64_t cluster = core->g().cluster_size;
  auto fixed = [&](uint64_t value) -> Result<uint64_t> {
    uint64_t offset = value & kOffsetMask;
    if (core->context.data_file && (value & kCopied) != 0) return value;
    if (offset == 0) return value & ~kCopied;
    IMG_ASSIGN_OR_RETURN(uint64_t count, core->refcounts.Get(offset / cluster));
    return count == 1 ? value | kCopied : value & ~kCopied;
  };
  for (uint64_t i = 0; i < core->l1.size(); ++i) {
    if ((core->l1[i] & kOffsetMask) == 0) continue;
    IMG_RETURN_IF_ERROR(CheckStop());
    // The L2 table is in the image file even when guest data is not.
    uint64_t offset = core->l1[i] & kOffsetMask;
    IMG_ASSIGN_OR_RETURN(uint64_t count, core->refcounts.Get(offset / cluster));
    uint64_t slot = count == 1 ? core->l1[i] | kCopied : core->l1[i] & ~kCopied;
    if (slot != core->l1[i]) core->SetL1(i, slot);
    IMG_ASSIGN_OR_RETURN(auto table, core->tables.Get(offset));
    for (uint64_t k = 0; k < core->g().l2_entries; ++k) {
      Entry entry = table->At(k);
      if (entry.compressed() || entry.descriptor == 0) continue;
      IMG_ASSIGN_OR_RETURN(uint64_t descriptor, fixed(entry.descriptor));
      if (descriptor == entry.descriptor) continue;
      entry.descriptor = descriptor;
      table->Set(k, entry);
    }
    if (core->writing) IMG_RETURN_IF_ERROR(core->FlushIfFull());
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
