// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/image.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "model/finding.h"

namespace imgfsck::qcow2 {
namespace {

// A number of entries that cannot be (past the file, above QEMU's limit, or too few for the disk)
// is replaced by what the disk needs, as far as the table's clusters reach.
L1Location LocateL1(const Image& image, uint64_t offset, uint64_t declared, uint64_t needed) {
  L1Location l1{offset, declared, 0};
  uint64_t cluster_size = image.geometry.cluster_size;
  uint64_t limit = AlignUp(image.file_size, cluster_size);
  if (offset == 0 || !IsAligned(offset, cluster_size) || offset >= limit) return l1;
  uint64_t room = std::min(kMaxL1Bytes, limit - offset) / 8;
  if (declared > room) {
    l1.entries = std::min(needed, room);
  } else if (declared < needed) {
    l1.entries =
        std::min({needed, room, AlignUp(std::max<uint64_t>(declared, 1) * 8, cluster_size) / 8});
  } else {
    l1.entries = declared;
  }
  return l1;
}

void LoadRefcountTable(Image* image) {
  const Header& h = image->header;
  uint64_t cluster_size = image->geometry.cluster_size;
  image->refcounts_usable = h.refcount_order <= kMaxRefcountOrder;
  if (!IsAligned(h.refcount_table_offset, cluster_size) || h.refcount_table_offset == 0 ||
      h.refcount_table_offset >= image->file_size) {
    return;
  }
  uint64_t room = AlignUp(image->file_size, cluster_size) - h.refcount_table_offset;
  uint64_t bytes = uint64_t{h.refcount_table_clusters} * cluster_size;
  if (bytes > std::min(room, kMaxRefcountTableBytes)) {
    // The number cannot be right: take what the file's clusters need.
    uint64_t blocks = DivRoundUp(image->ClusterCount(), image->geometry.block_entries);
    bytes = std::min({AlignUp(blocks * 8, cluster_size), room, kMaxRefcountTableBytes});
  }
  ByteVector raw(bytes);
  ReadTolerant(*image->source, h.refcount_table_offset, raw, &image->unreadable);
  image->refcount_table.resize(bytes / 8);
  for (size_t i = 0; i < image->refcount_table.size(); ++i) {
    image->refcount_table[i] = LoadBe<uint64_t>(&raw[8 * i]);
  }
}

// The header leads to another table, and there is no snapshot at that place.
bool SnapshotsAreElsewhere(const Image& image) {
  const Header& h = image.header;
  HostRange start = MakeHostRange(h.snapshots_offset, 40);
  bool on_other =
      start.Overlaps(MakeHostRange(image.active.offset, image.active.bytes())) ||
      start.Overlaps(MakeHostRange(h.refcount_table_offset, image.refcount_table.size() * 8));
  for (uint64_t entry : image.refcount_table) on_other |= entry == h.snapshots_offset;
  if (!on_other) return false;
  auto first = ParseSnapshotAt(*image.source, h.snapshots_offset);
  return !first || !IsSnapshotId(first->id);
}

void LoadExtensions(Image* image) {
  image->extensions = ParseExtensions(image->header, image->first_cluster);
  image->backing_name = BackingName(image->header, image->first_cluster);
  if (const Extension* e = image->extensions.Find(kExtBackingFormat)) {
    // QEMU reads it as a C string.
    image->backing_format = std::string(AsText(e->data).substr(0, AsText(e->data).find('\0')));
  }
  if (const Extension* e = image->extensions.Find(kExtDataFile)) {
    image->data_file_name = std::string(AsText(e->data));
  }
  if (const Extension* e = image->extensions.Find(kExtBitmaps)) {
    image->bitmaps_extension = ParseBitmapsExtension(*e);
    if (image->bitmaps_extension) {
      image->bitmaps =
          ParseBitmapDirectory(*image->source, image->geometry, *image->bitmaps_extension);
    }
  }
  if (const Extension* e = image->extensions.Find(kExtEncryption)) {
    image->encryption = ParseEncryptionExtension(*e);
    if (image->encryption) image->luks = ParseLuks(*image->source, image->encryption->offset);
  }
}

}  // namespace

std::string Image::LayerName(size_t layer) const {
  if (layer == 0) return std::string(kActiveLayer);
  // No program writes an id this long: it is damage, and would be repeated in every finding.
  constexpr size_t kLongest = 127;
  const std::string& id = snapshots.entries[layer - 1].id;
  if (id.empty() || id.size() > kLongest) return fmt::format("#{}", layer);
  return ValidUtf8(id);
}

uint64_t Image::LayerSize(size_t layer) const {
  if (layer == 0) return header.size;
  return snapshots.entries[layer - 1].disk_size().value_or(header.size);
}

std::string Image::TableName(size_t layer, uint64_t l1_index) const {
  return layer == 0 ? fmt::format("l2[{}]", l1_index)
                    : fmt::format("snapshot[{}]/l2[{}]", layer - 1, l1_index);
}

Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source) {
  auto image = std::make_unique<Image>();
  image->source = &source;
  image->file_size = source.Size();
  image->first_cluster.resize(std::min<uint64_t>(image->file_size, 4096));
  ReadTolerant(source, 0, image->first_cluster, &image->unreadable);
  image->header = ParseHeader(image->first_cluster);
  const Header& h = image->header;
  if ((h.version != 2 && h.version != 3) || h.cluster_bits < kMinClusterBits ||
      h.cluster_bits > kMaxClusterBits) {
    return image;
  }
  image->walkable = true;
  image->geometry = Geometry::Make(h.cluster_bits, h.is_v3() && h.Incompatible(kIncompatExtendedL2),
                                   h.refcount_order <= kMaxRefcountOrder ? h.refcount_order : 4);
  uint64_t cluster = std::min(image->geometry.cluster_size, image->file_size);
  image->unreadable.clear();
  image->first_cluster.resize(cluster);
  ReadTolerant(source, 0, image->first_cluster, &image->unreadable);
  LoadExtensions(image.get());
  image->active = LocateL1(*image, h.l1_table_offset, h.l1_size, image->L1Min(0));
  LoadRefcountTable(image.get());
  // Entries read from between clusters would be nonsense made of other structures.
  if (h.nb_snapshots > 0 && IsAligned(h.snapshots_offset, image->geometry.cluster_size) &&
      h.snapshots_offset != 0 && !SnapshotsAreElsewhere(*image)) {
    image->snapshots = ParseSnapshots(source, h);
    if (image->snapshots.stop == SnapshotTable::Stop::kOverrun) {  // damage, or only unreadable?
      ByteVector entry(image->geometry.cluster_size);
      ReadTolerant(source, image->snapshots.stopped_offset, entry, &image->unreadable);
    }
    for (size_t i = 0; i < image->snapshots.entries.size(); ++i) {
      const Snapshot& s = image->snapshots.entries[i];
      image->snapshot_l1.push_back(
          LocateL1(*image, s.l1_table_offset, s.l1_size, image->L1Min(i + 1)));
    }
  } else {
    image->snapshots.declared = h.nb_snapshots;
    image->snapshots.offset = image->snapshots.end = h.snapshots_offset;
  }
  return image;
}

}  // namespace imgfsck::qcow2
