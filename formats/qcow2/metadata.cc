// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/metadata.h"

#include <fmt/format.h>

#include <algorithm>

namespace imgfsck::qcow2 {

std::string_view KindName(MetaKind kind) {
  static constexpr std::string_view kNames[] = {
      "header", "l1",   "refcount-table",   "refcount-block", "snapshot-table",
      "l1",     "luks", "bitmap-directory", "bitmap-table",   "bitmap-data",
      "l2"};
  return kNames[static_cast<size_t>(kind)];
}

std::string MetaRegion::Structure() const {
  switch (kind) {
    case MetaKind::kRefcountBlock:
      return fmt::format("refcount-block[{}]", index);
    case MetaKind::kSnapshotL1:
      return fmt::format("snapshot[{}]/l1", index);
    case MetaKind::kBitmapTable:
      return fmt::format("bitmap[{}]/table", index);
    case MetaKind::kBitmapData:
      return fmt::format("bitmap[{}]/data[{}]", owner, index);
    case MetaKind::kL2:
      return fmt::format("l2[{}]", index);
    default:
      return std::string(KindName(kind));
  }
}

std::vector<uint64_t> LoadBitmapTable(const Image& image, const Bitmap& bitmap) {
  const Geometry& g = image.geometry;
  uint64_t bytes = uint64_t{bitmap.table_size} * 8;
  if (bitmap.table_offset == 0 || !IsAligned(bitmap.table_offset, g.cluster_size) ||
      bitmap.table_size > kMaxBitmapTableEntries ||
      !RangeFits(bitmap.table_offset, bytes, AlignUp(image.file_size, g.cluster_size))) {
    return {};
  }
  ByteVector raw(bytes);
  std::vector<HostRange> bad;
  ReadTolerant(*image.source, bitmap.table_offset, raw, &bad);
  std::vector<uint64_t> table(bitmap.table_size);
  for (size_t i = 0; i < table.size(); ++i) table[i] = LoadBe<uint64_t>(&raw[8 * i]);
  return table;
}

namespace {

class MetaVisitor {
 public:
  MetaVisitor(const Image& image, const std::function<void(const MetaRegion&)>& visit)
      : image_(image),
        visit_(visit),
        limit_(AlignUp(image.file_size, image.geometry.cluster_size)) {}

  void Run() {
    const Header& h = image_.header;
    uint64_t cluster_size = image_.geometry.cluster_size;
    Visit(MetaKind::kHeader, 0, cluster_size);
    Visit(MetaKind::kL1, image_.active.offset, image_.active.bytes());
    if (!image_.refcount_table.empty()) {
      Visit(MetaKind::kRefcountTable, h.refcount_table_offset, image_.refcount_table.size() * 8);
      VisitBlocks();
    }
    Visit(MetaKind::kSnapshotTable, image_.snapshots.offset,
          image_.snapshots.end - image_.snapshots.offset);
    for (size_t i = 0; i < image_.snapshot_l1.size(); ++i) {
      Visit(MetaKind::kSnapshotL1, image_.snapshot_l1[i].offset, image_.snapshot_l1[i].bytes(), i);
    }
    if (image_.encryption) {
      uint64_t length = image_.encryption->length;
      if (!RangeFits(image_.encryption->offset, length, limit_)) length = kLuksHeaderSize;
      Visit(MetaKind::kLuks, image_.encryption->offset, length);
    }
    if (image_.bitmaps.readable) VisitBitmaps();
  }

 private:
  void Visit(MetaKind kind, uint64_t offset, uint64_t bytes, uint64_t index = 0,
             uint64_t owner = 0) {
    if (bytes == 0 || offset >= image_.file_size || (offset == 0 && kind != MetaKind::kHeader) ||
        !IsAligned(offset, image_.geometry.cluster_size)) {
      return;
    }
    visit_({kind, MakeHostRange(offset, std::min(bytes, limit_ - offset)), index, owner});
  }

  void VisitBlocks() {
    for (size_t i = 0; i < image_.refcount_table.size(); ++i) {
      uint64_t offset = image_.refcount_table[i] & ~kRefcountTableReserved;
      if (offset != 0) {
        Visit(MetaKind::kRefcountBlock, offset, image_.geometry.cluster_size, i);
      }
    }
  }

  void VisitBitmaps() {
    Visit(MetaKind::kBitmapDirectory, image_.bitmaps.offset, image_.bitmaps.size);
    for (size_t b = 0; b < image_.bitmaps.entries.size(); ++b) {
      const Bitmap& bitmap = image_.bitmaps.entries[b];
      std::vector<uint64_t> table = LoadBitmapTable(image_, bitmap);
      if (table.empty()) continue;
      Visit(MetaKind::kBitmapTable, bitmap.table_offset, table.size() * 8, b);
      for (size_t i = 0; i < table.size(); ++i) {
        uint64_t offset = table[i] & kOffsetMask;
        if (offset != 0) {
          Visit(MetaKind::kBitmapData, offset, image_.geometry.cluster_size, i, b);
        }
      }
    }
  }

  const Image& image_;
  const std::function<void(const MetaRegion&)>& visit_;
  uint64_t limit_;
};

}  // namespace

void ForEachMeta(const Image& image, const std::function<void(const MetaRegion&)>& visit) {
  MetaVisitor(image, visit).Run();
}

}  // namespace imgfsck::qcow2
