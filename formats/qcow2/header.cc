// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace imgfsck::qcow2 {
namespace {

constexpr FieldSpec kFields[] = {
    {"magic", 0, 4, false},
    {"version", 4, 4, false},
    {"backing_file_offset", 8, 8, false},
    {"backing_file_size", 16, 4, false},
    {"cluster_bits", 20, 4, false},
    {"size", 24, 8, false},
    {"crypt_method", 32, 4, false},
    {"l1_size", 36, 4, false},
    {"l1_table_offset", 40, 8, false},
    {"refcount_table_offset", 48, 8, false},
    {"refcount_table_clusters", 56, 4, false},
    {"nb_snapshots", 60, 4, false},
    {"snapshots_offset", 64, 8, false},
    {"incompatible_features", 72, 8, true},
    {"compatible_features", 80, 8, true},
    {"autoclear_features", 88, 8, true},
    {"refcount_order", 96, 4, true},
    {"header_length", 100, 4, true},
    {"compression_type", 104, 1, true},
};

}  // namespace

std::span<const FieldSpec> HeaderFields() { return kFields; }

uint64_t Header::ExtensionsBegin() const {
  if (!is_v3()) return kHeaderLengthV2;
  return std::max<uint64_t>(header_length, kHeaderLengthV3);
}

Header ParseHeader(Bytes bytes) {
  std::array<uint8_t, kHeaderLengthCurrent> b{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), b.size()), b.begin());
  Header h;
  h.magic = BeAt<uint32_t>(b, 0);
  h.version = BeAt<uint32_t>(b, 4);
  h.backing_file_offset = BeAt<uint64_t>(b, 8);
  h.backing_file_size = BeAt<uint32_t>(b, 16);
  h.cluster_bits = BeAt<uint32_t>(b, 20);
  h.size = BeAt<uint64_t>(b, 24);
  h.crypt_method = BeAt<uint32_t>(b, 32);
  h.l1_size = BeAt<uint32_t>(b, 36);
  h.l1_table_offset = BeAt<uint64_t>(b, 40);
  h.refcount_table_offset = BeAt<uint64_t>(b, 48);
  h.refcount_table_clusters = BeAt<uint32_t>(b, 56);
  h.nb_snapshots = BeAt<uint32_t>(b, 60);
  h.snapshots_offset = BeAt<uint64_t>(b, 64);
  if (h.is_v3()) {
    h.incompatible_features = BeAt<uint64_t>(b, 72);
    h.compatible_features = BeAt<uint64_t>(b, 80);
    h.autoclear_features = BeAt<uint64_t>(b, 88);
    h.refcount_order = BeAt<uint32_t>(b, 96);
    h.header_length = BeAt<uint32_t>(b, 100);
    if (h.has_compression_field()) h.compression_type = b[104];
  }
  return h;
}

void EncodeHeader(const Header& h, MutableBytes b) {
  PutBe(b, 0, h.magic);
  PutBe(b, 4, h.version);
  PutBe(b, 8, h.backing_file_offset);
  PutBe(b, 16, h.backing_file_size);
  PutBe(b, 20, h.cluster_bits);
  PutBe(b, 24, h.size);
  PutBe(b, 32, h.crypt_method);
  PutBe(b, 36, h.l1_size);
  PutBe(b, 40, h.l1_table_offset);
  PutBe(b, 48, h.refcount_table_offset);
  PutBe(b, 56, h.refcount_table_clusters);
  PutBe(b, 60, h.nb_snapshots);
  PutBe(b, 64, h.snapshots_offset);
  if (!h.is_v3()) return;
  PutBe(b, 72, h.incompatible_features);
  PutBe(b, 80, h.compatible_features);
  PutBe(b, 88, h.autoclear_features);
  PutBe(b, 96, h.refcount_order);
  PutBe(b, 100, h.header_length);
  if (h.has_compression_field()) b[104] = h.compression_type;
}

const Extension* ExtensionArea::Find(uint32_t type) const {
  for (const Extension& record : records) {
    if (record.type == type) return &record;
  }
  return nullptr;
}

bool IsBackingFormat(const Extension& record) {
  if (record.length > kMaxBackingFormatLength) return false;
  // Those of today, and those that QEMU once had.
  static constexpr std::string_view kKnown =
      "  raw qcow2 qcow cow vmdk vpc vdi vhdx qed luks dmg bochs cloop parallels file host_device "
      "host_cdrom host_floppy http https ftp ftps tftp curl nbd nfs rbd iscsi ssh nvme gluster "
      "sheepdog vxhs vvfat quorum throttle blkdebug blkverify blkreplay blklogwrites null-co "
      "null-aio replication copy-on-read preallocate compress snapshot-access io_uring "
      "nvme-io_uring virtio-blk-vfio-pci virtio-blk-vhost-user virtio-blk-vhost-vdpa ";
  const std::string text(record.data.begin(), std::ranges::find(record.data, uint8_t{0}));
  return text.find(' ') == text.npos && kKnown.find(' ' + text + ' ') != kKnown.npos;
}

ExtensionArea ParseExtensions(const Header& header, Bytes cluster) {
  ExtensionArea area;
  area.begin = header.ExtensionsBegin();
  area.limit = cluster.size();
  // The backing file's name ends the area, where its place makes sense.
  if (header.backing_file_offset >= area.begin && header.backing_file_offset < area.limit) {
    area.limit = header.backing_file_offset;
  }
  uint64_t at = area.begin;
  while (at <= area.limit && area.limit - at >= 8) {
    Extension record;
    record.offset = at;
    record.type = BeAt<uint32_t>(cluster, at);
    record.length = BeAt<uint32_t>(cluster, at + 4);
    uint64_t room = area.limit - at - 8;
    // QEMU looks at the length first, also of the END.
    if (record.type == kExtEnd && record.length <= room) {
      area.end_marker = at;
      at += 8;
      break;
    }
    record.data = cluster.subspan(at + 8, std::min<uint64_t>(record.length, room));
    if (record.length > room) {
      area.overrun = at;
      area.records.push_back(record);
      at = area.limit;
      break;
    }
    area.records.push_back(record);
    at = std::min(record.end(), area.limit);
  }
  area.end = std::min(at, std::max(area.limit, area.begin));
  return area;
}

std::optional<std::string> BackingName(const Header& header, Bytes cluster) {
  if (header.backing_file_offset == 0 ||
      !RangeFits(header.backing_file_offset, header.backing_file_size, cluster.size())) {
    return std::nullopt;
  }
  return std::string(AsText(cluster.subspan(header.backing_file_offset, header.backing_file_size)));
}

std::string_view ExtensionName(uint32_t type) {
  switch (type) {
    case kExtEnd:
      return "end";
    case kExtBackingFormat:
      return "backing format";
    case kExtFeatureNames:
      return "feature names";
    case kExtBitmaps:
      return "bitmaps";
    case kExtEncryption:
      return "encryption header";
    case kExtDataFile:
      return "data file name";
    default:
      return "unknown";
  }
}

std::string FeatureText(const Header& header, int kind) {
  static constexpr std::string_view kNames[3][5] = {
      {"dirty", "corrupt", "external data file", "compression type", "extended L2 entries"},
      {"lazy refcounts", "", "", "", ""},
      {"bitmaps", "raw external data", "", "", ""}};
  uint64_t bits = kind == 0   ? header.incompatible_features
                  : kind == 1 ? header.compatible_features
                              : header.autoclear_features;
  std::string text;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    if (!text.empty()) text += ", ";
    std::string_view name = bit < 5 ? kNames[kind][bit] : "";
    text += name.empty() ? fmt::format("unknown bit {}", bit) : std::string(name);
  }
  return text.empty() ? "none" : text;
}

}  // namespace imgfsck::qcow2
