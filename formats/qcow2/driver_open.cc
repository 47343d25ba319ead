// SPDX-License-Identifier: Apache-2.0
// Strict opening: refuses an image whose guest data could be misread, and, for writing, one whose
// counts, snapshots or bitmaps could not be kept right. Damage elsewhere does not matter to a
// reader.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/driver_core.h"
#include "formats/qcow2/driver_recount.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kTableCacheBytes = 32 * kMiB;

Error Refuse(std::string why) { return {ErrorCode::kInvalid, std::move(why), {}}; }
Error Unknown(std::string what) { return {ErrorCode::kUnsupported, std::move(what), {}}; }

Status CheckFeatures(const Header& h) {
  if (h.incompatible_features & ~kIncompatKnown) {
    return Unknown("the image uses features that nobody here knows: " + FeatureText(h, 0));
  }
  if (h.crypt_method > kCryptLuks) return Unknown("unknown encryption method");
  if (h.refcount_order > kMaxRefcountOrder) return Refuse("refcount_order is above 6");
  bool other_compression = h.Incompatible(kIncompatCompression);
  if (h.compression_type > kZstd) return Unknown("unknown compression type");
  if ((h.compression_type != kDeflate) != other_compression) {
    return Refuse("compression type and its feature bit contradict each other");
  }
  if (h.Incompatible(kIncompatExtendedL2) && h.cluster_bits < kMinClusterBitsExtendedL2) {
    return Refuse("extended L2 entries need clusters of 16 KiB and more");
  }
  if (h.Autoclear(kAutoclearRawData) && !h.Incompatible(kIncompatDataFile)) {
    return Refuse("raw external data without an external data file");
  }
  return Ok();
}

// Bytes of the first cluster that mean something.
uint64_t HeaderEnd(const Image& image) {
  const Header& h = image.header;
  uint64_t name_end =
      h.backing_file_offset == 0 ? 0 : SaturatingAdd(h.backing_file_offset, h.backing_file_size);
  return std::max({uint64_t{h.header_length}, image.extensions.end, name_end});
}

Status CheckHeader(const Image& image) {
  const Header& h = image.header;
  for (const HostRange& range : image.unreadable) {
    if (range.offset.value >= HeaderEnd(image)) continue;
    return Error{ErrorCode::kIo, "the header cannot be read", range.offset.value};
  }
  if (h.magic != kMagic) return Refuse("not a qcow2 image");
  if (h.version != 2 && h.version != 3) {
    return Unknown(fmt::format("qcow2 version {} is not supported", h.version));
  }
  if (!image.walkable) return Refuse(fmt::format("cluster_bits {} makes no sense", h.cluster_bits));
  uint64_t cluster_size = image.geometry.cluster_size;
  if (h.is_v3() && (h.header_length < kHeaderLengthV3 || h.header_length > cluster_size)) {
    return Refuse(fmt::format("header_length {} makes no sense", h.header_length));
  }
  IMG_RETURN_IF_ERROR(CheckFeatures(h));
  if (image.extensions.overrun) return Refuse("a header extension does not fit");
  if (h.backing_file_offset != 0 &&
      (h.backing_file_size > kMaxBackingNameLength || !image.backing_name ||
       h.backing_file_offset < image.extensions.begin)) {
    return Refuse("the backing file's name does not lie in the first cluster");
  }
  if (h.size > uint64_t{1} << 62) return Refuse("the disk is too large");
  if (h.l1_size > kMaxL1Bytes / 8) return Refuse("the L1 table is too large");
  if (h.l1_size < image.geometry.MinL1Entries(h.size)) {
    return Refuse("the L1 table is too short for the disk");
  }
  return Ok();
}

Status CheckForWriting(const Image& image) {
  const Header& h = image.header;
  if (!image.unreadable.empty()) {
    return Error{ErrorCode::kIo, "metadata cannot be read", image.unreadable[0].offset.value};
  }
  uint64_t cluster_size = image.geometry.cluster_size;
  if (h.Incompatible(kIncompatCorrupt)) {
    return Refuse("the image is marked as corrupt: repair it before it is written");
  }
  uint64_t table = h.refcount_table_clusters * cluster_size;
  if (h.refcount_table_offset == 0 || !IsAligned(h.refcount_table_offset, cluster_size) ||
      table == 0 || table > kMaxRefcountTableBytes || image.refcount_table.size() * 8 != table) {
    return Refuse("the refcount table cannot be used: repair the image before it is written");
  }
  if (h.nb_snapshots > 0 && (image.snapshots.stop != SnapshotTable::Stop::kNone ||
                             image.snapshots.entries.size() != h.nb_snapshots)) {
    return Refuse("the snapshot table is damaged: repair the image before it is written");
  }
  for (const Snapshot& s : image.snapshots.entries) {
    if (s.extra.size() != s.extra_data_size) return Refuse("a snapshot has too much extra data");
  }
  for (size_t i = 0; i < image.snapshot_l1.size(); ++i) {
    if (image.snapshot_l1[i].entries < image.snapshot_l1[i].declared) {
      return Refuse("a snapshot's L1 table is damaged: repair the image before it is written");
    }
  }
  if (h.Autoclear(kAutoclearBitmaps) && image.bitmaps_extension &&
      (!image.bitmaps.readable || image.bitmaps.broken)) {
    return Refuse("the bitmap directory is damaged: repair the image before it is written");
  }
  return Ok();
}

}  // namespace

Core::Core(const ByteSource& source, ByteStore* store, const OpenOptions& options,
           std::unique_ptr<Image> parsed)
    : path(options.path),
      image(std::move(parsed)),
      header(image->header),
      context{image->geometry, image->header.version, image->has_data_file()},
      file(&source, store),
      data_file(options.data_store != nullptr ? options.data_store : options.data_source,
                store != nullptr ? options.data_store : nullptr),
      writable(store != nullptr),
      size(AlignDown(image->header.size, kSector)),
      tables(&file, image->geometry, kTableCacheBytes),
      refcounts(&file, image->geometry, image->header.refcount_table_offset, image->refcount_table,
                &metadata,
                [this](uint64_t offset, Bytes bytes) { return WriteHeaderBytes(offset, bytes); }),
      snapshots(image->snapshots.entries) {
  data = context.data_file ? &data_file : &file;
  image->first_cluster.resize(image->geometry.cluster_size);
}

Status Core::LoadL1(uint64_t offset, uint64_t entries) {
  if (entries == 0) return Ok();
  if (!IsAligned(offset, g().cluster_size) || offset == 0 ||
      !RangeFits(offset, entries * 8, AlignUp(file.Size(), g().cluster_size))) {
    return DamagedAt("the L1 table does not lie in the file", offset);
  }
  ByteVector bytes(entries * 8);
  IMG_RETURN_IF_ERROR(file.Read(offset, bytes));
  l1_offset = offset;
  l1.resize(entries);
  for (size_t i = 0; i < entries; ++i) l1[i] = LoadBe<uint64_t>(&bytes[8 * i]);
  return Ok();
}

Status Core::SelectSnapshot(const std::string& name_or_id) {
  auto matches = [&](std::string Snapshot::*field) {
    return std::ranges::find(snapshots, name_or_id, field);
  };
  auto found = matches(&Snapshot::id);
  if (found == snapshots.end()) found = matches(&Snapshot::name);
  if (found == snapshots.end()) {
    return Error{
        ErrorCode::kNotFound, fmt::format("no snapshot \"{}\"", Printable(name_or_id)), {}};
  }
  size = AlignDown(found->disk_size().value_or(header.size), kSector);
  if (size > uint64_t{1} << 62 || found->l1_size > kMaxL1Bytes / 8 ||
      found->l1_size < g().MinL1Entries(size)) {
    return DamagedAt("the snapshot's L1 table does not fit its disk", found->l1_table_offset);
  }
  snapshot_view = true;
  writable = false;
  return LoadL1(found->l1_table_offset, found->l1_size);
}

Result<std::unique_ptr<Core>> Core::Open(const ByteSource& source, ByteStore* store,
                                         const OpenOptions& options) {
  if (!options.writable || !options.snapshot.empty()) store = nullptr;
  IMG_ASSIGN_OR_RETURN(auto parsed, ParseImage(source));
  IMG_RETURN_IF_ERROR(CheckHeader(*parsed));
  if (store != nullptr) IMG_RETURN_IF_ERROR(CheckForWriting(*parsed));
  if (parsed->has_data_file() && options.data_source == nullptr && options.data_store == nullptr) {
    return Error{ErrorCode::kNotFound, "the image's external data file is not open", {}};
  }
  if (store != nullptr && parsed->has_data_file() && options.data_store == nullptr) {
    return Error{ErrorCode::kPermission, "the image's external data file is open read-only", {}};
  }
  IMG_ASSIGN_OR_RETURN(auto cipher, OpenCipher(*parsed, options.passphrase));
  std::unique_ptr<Core> core(new Core(source, store, options, std::move(parsed)));
  core->cipher = std::move(cipher);
  const Header& h = core->header;
  if (options.snapshot.empty()) {
    IMG_RETURN_IF_ERROR(core->LoadL1(h.l1_table_offset, h.l1_size));
  } else {
    IMG_RETURN_IF_ERROR(core->SelectSnapshot(options.snapshot));
  }
  core->bitmaps = std::make_unique<BitmapStore>(core.get());
  return core;
}

void Core::MapMetadata() {
  const uint64_t cluster = g().cluster_size;
  metadata = {};
  auto add = [&](uint64_t offset, uint64_t length) {
    metadata.fixed.Insert(offset, AlignUp(length, cluster));
  };
  add(0, cluster);
  add(l1_offset, l1.size() * 8);
  add(header.refcount_table_offset, header.refcount_table_clusters * cluster);
  for (uint64_t entry : image->refcount_table) {
    if (entry != 0) add(entry & ~kRefcountTableReserved, cluster);
  }
  if (!snapshots.empty()) {
    add(image->snapshots.offset, image->snapshots.end - image->snapshots.offset);
  }
  for (const Snapshot& s : snapshots) add(s.l1_table_offset, uint64_t{s.l1_size} * 8);
  if (image->encryption) add(image->encryption->offset, image->encryption->length);
  if (image->bitmaps_extension && image->bitmaps.readable) {
    add(image->bitmaps.offset, image->bitmaps.size);
    for (const Bitmap& b : image->bitmaps.entries) add(b.table_offset, uint64_t{b.table_size} * 8);
  }
  for (uint64_t entry : l1) {
    if ((entry & kOffsetMask) != 0) metadata.tables.Insert(entry & kOffsetMask, cluster);
  }
}

Status Core::BeginWriting() {
  if (writing && !corrupt) return Ok();
  if (!writable) {
    return Error{ErrorCode::kPermission,
                 snapshot_view ? "a snapshot cannot be written" : "the image is open read-only",
                 {}};
  }
  if (corrupt) return DamagedAt("found before; the image is not written any more", 0);
  MapMetadata();
  if (header.Incompatible(kIncompatDirty)) {
    IMG_RETURN_IF_ERROR(RepairDirty(this));
    IMG_RETURN_IF_ERROR(
        SetFeatureBits(header.incompatible_features & ~kIncompatDirty, header.autoclear_features));
  }
  if ((header.autoclear_features & ~kAutoclearKnown) != 0) {
    IMG_RETURN_IF_ERROR(
        SetFeatureBits(header.incompatible_features, header.autoclear_features & kAutoclearKnown));
  }
  IMG_RETURN_IF_ERROR(bitmaps->BeginWriting());
  if (lazy()) {
    IMG_RETURN_IF_ERROR(
        SetFeatureBits(header.incompatible_features | kIncompatDirty, header.autoclear_features));
  }
  writing = true;
  return Ok();
}

}  // namespace imgfsck::qcow2
