// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow1/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/common/deflate.h"
#include "formats/common/stored.h"
#include "formats/qcow1/create.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

Error Damaged(uint64_t guest_offset, std::string what) {
  return {ErrorCode::kInvalid,
          fmt::format("the cluster at guest offset {} cannot be read: {}", guest_offset, what),
          guest_offset};
}

Status Refuse(std::string why) { return Error{ErrorCode::kInvalid, std::move(why), {}}; }

Status CheckOpenable(const Image& image) {
  const Header& h = image.header;
  if (h.magic != kMagic || h.version != kVersion) return Refuse("not a qcow version 1 image");
  if (!GeometryIsSane(h)) return Refuse("the header's cluster or table size does not exist");
  if (h.crypt_method > kCryptAes) return Refuse("the header names an unknown encryption method");
  if (image.geometry.l1_entries > kMaxL1Entries)
    return Refuse("the disk is too large for its tables");
  if (h.size < 2) return Refuse("the disk has no size");
  if (!image.l1_clear) return Refuse("no L1 table stands where the header says");
  if (h.backing_file_offset != 0 && h.backing_file_size > kMaxBackingNameLength) {
    return Refuse("the backing file's name is too long");
  }
  if (h.has_backing_name() && !image.backing_name) {
    return Refuse("the backing file's name lies outside the file");
  }
  return Ok();
}

ProbeScore Probe(const ByteSource& source) {
  uint8_t bytes[kHeaderLength] = {};
  if (!ReadPadded(source, 0, bytes)) return ProbeScore::kNo;
  Header h = ParseHeader(bytes);
  if (h.magic == kMagic && h.version == kVersion) return ProbeScore::kSure;
  // One of the two is damaged; the rest has to look like a header, length of the file included.
  bool rest = GeometryIsSane(h) && h.crypt_method <= kCryptAes && h.size >= kMinSize &&
              h.padding == 0 && h.l1_table_offset >= kHeaderLength &&
              h.l1_table_offset < source.Size() && GeometryOf(h).l1_entries <= kMaxL1Entries;
  bool later_version = h.magic == kMagic && (h.version == 2 || h.version == 3);
  if (!rest || later_version) return ProbeScore::kNo;
  if (h.magic == kMagic) return ProbeScore::kLikely;  // more than qcow2 can say of it
  return h.version == kVersion ? ProbeScore::kHeaderDamaged : ProbeScore::kNo;
}

Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source));
  return MakeRows(std::move(image), path);
}

constexpr std::string_view kAliases[] = {"qcow1"};

}  // namespace

Result<std::unique_ptr<Driver>> QcowDriver::Open(const ByteSource& source, ByteStore* store,
                                                 const OpenOptions& options) {
  if (!options.snapshot.empty()) {
    return Error{ErrorCode::kUnsupported, "a qcow version 1 image has no snapshots", {}};
  }
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source));
  IMG_RETURN_IF_ERROR(CheckOpenable(*image));
  std::unique_ptr<QcowDriver> driver(options.writable && store != nullptr
                                         ? new QcowDriver(*store, store)
                                         : new QcowDriver(source, nullptr));
  if (image->encrypted()) {
    if (options.passphrase.empty()) {
      return Error{ErrorCode::kNeedsKey, "the image is encrypted and needs its passphrase", {}};
    }
    driver->aes_.emplace(options.passphrase);
  }
  driver->header_ = image->header;
  driver->xen_ = image->xen;
  driver->geometry_ = image->geometry;
  driver->l1_little_endian_ = image->l1_little_endian;
  driver->backing_name_ = image->backing_name;
  return std::unique_ptr<Driver>(std::move(driver));
}

Capabilities QcowDriver::capabilities() const {
  Capabilities can;
  can.write = can.zero = can.compressed_write = store_ != nullptr;
  return can;
}

std::optional<BackingReference> QcowDriver::Backing() const {
  if (!backing_name_) return std::nullopt;
  return BackingReference{*backing_name_, "", std::nullopt, std::nullopt, true};
}

Status QcowDriver::CheckRange(uint64_t offset, uint64_t length) const {
  if (RangeFits(offset, length, VirtualSize())) return Ok();
  return Error{ErrorCode::kInvalid,
               fmt::format("{} bytes at {} reach beyond the disk of {} bytes", length, offset,
                           VirtualSize()),
               offset};
}

uint64_t QcowDriver::ClusterEnd(uint64_t offset) const {
  uint64_t end = AlignDown(offset, geometry_.cluster_size) + geometry_.cluster_size;
  return std::min(end, VirtualSize());
}

Result<uint64_t> QcowDriver::L1Entry(uint64_t index) const {
  uint64_t at = header_.l1_table_offset + 8 * index;
  if (auto waiting = pending_.find(at); waiting != pending_.end()) return waiting->second;
  uint8_t bytes[8];
  IMG_RETURN_IF_ERROR(ReadPadded(source_, at, bytes));
  return l1_little_endian_ ? LoadLe<uint64_t>(bytes) : LoadBe<uint64_t>(bytes);
}

Result<uint64_t> QcowDriver::TableFor(uint64_t offset) const {
  uint64_t index = offset / geometry_.span;
  IMG_ASSIGN_OR_RETURN(uint64_t table, L1Entry(index));
  if ((table & kTopBit) != 0) return Damaged(offset, "its L1 entry has an unknown flag");
  if (table >= source_.Size()) {
    return Damaged(offset, "its L2 table lies beyond the end of the file");
  }
  return table;
}

Result<uint64_t> QcowDriver::NextMapped(uint64_t offset, uint64_t end) const {
  uint64_t first = header_.l1_table_offset + 8 * (offset / geometry_.span + 1);
  uint64_t found = header_.l1_table_offset + 8 * DivRoundUp(end, geometry_.span);
  if (auto waiting = pending_.lower_bound(first); waiting != pending_.end()) {
    found = std::min(found, waiting->first);
  }
  std::vector<HostRange> bad;
  auto visit = [&](uint64_t at, Bytes piece) -> Result<bool> {
    auto used = std::find_if(piece.begin(), piece.end(), [](uint8_t byte) { return byte != 0; });
    if (used == piece.end()) return true;
    found = at + static_cast<uint64_t>(used - piece.begin());
    return false;
  };
  IMG_RETURN_IF_ERROR(ForEachStoredPiece(source_, first, found, &bad, visit));
  for (const HostRange& range : bad) found = std::min(found, std::max(first, range.offset.value));
  uint64_t index = (found - header_.l1_table_offset) / 8;
  return std::clamp(index * geometry_.span, offset, end);
}

Status QcowDriver::LoadEntries(uint64_t offset, uint64_t count, std::vector<Entry>* entries) const {
  uint64_t first = offset / geometry_.cluster_size % geometry_.l2_entries;
  count = std::min(count, geometry_.l2_entries - first);
  entries->assign(count, Entry{});
  IMG_ASSIGN_OR_RETURN(uint64_t table, TableFor(offset));
  if (table == 0) return Ok();
  uint64_t begin = table + 8 * first, end = begin + 8 * count;
  ByteVector raw(8 * count);
  IMG_RETURN_IF_ERROR(ReadPadded(source_, begin, raw));
  for (uint64_t i = 0; i < count; ++i) (*entries)[i].raw = LoadBe<uint64_t>(&raw[8 * i]);
  for (auto it = pending_.lower_bound(begin); it != pending_.end() && it->first < end; ++it) {
    (*entries)[(it->first - begin) / 8].raw = it->second;
  }
  return Ok();
}

Status QcowDriver::ReadUnmapped(uint64_t offset, MutableBytes buffer) const {
  if (backing_) return backing_(offset, buffer);
  std::fill(buffer.begin(), buffer.end(), uint8_t{0});
  return Ok();
}

Status QcowDriver::ReadPlain(Entry entry, uint64_t offset, MutableBytes buffer) const {
  uint64_t host = entry.offset(geometry_) + (offset & (geometry_.cluster_size - 1));
  if (!IsAligned(entry.offset(geometry_), kSector)) {
    return Damaged(offset, "its entry points to no sector boundary");
  }
  if (entry.offset(geometry_) >= source_.Size()) {
    return Damaged(offset, "its data lies beyond the end of the file");
  }
  if (!aes_) return ReadPadded(source_, host, buffer);
  uint64_t lead = offset % kSector;
  if (lead == 0 && IsAligned(buffer.size(), kSector)) {
    IMG_RETURN_IF_ERROR(ReadPadded(source_, host, buffer));
    return aes_->Decrypt(offset, buffer);
  }
  ByteVector whole(AlignUp(lead + buffer.size(), kSector));
  IMG_RETURN_IF_ERROR(ReadPadded(source_, host - lead, whole));
  IMG_RETURN_IF_ERROR(aes_->Decrypt(offset - lead, whole));
  std::memcpy(buffer.data(), whole.data() + lead, buffer.size());
  return Ok();
}

Status QcowDriver::ReadCompressed(Entry entry, uint64_t offset, MutableBytes buffer) const {
  uint64_t length = entry.length(geometry_), at = entry.offset(geometry_);
  if (length == 0) return Damaged(offset, "its compressed data has length zero");
  if (!RangeFits(at, length, source_.Size())) {
    return Damaged(offset, "its compressed data reaches beyond the end of the file");
  }
  ByteVector stream(length), cluster(geometry_.cluster_size);
  IMG_RETURN_IF_ERROR(ReadExact(source_, at, stream));
  if (Status decoded = InflateRaw(stream, cluster); !decoded) {
    return Damaged(offset, decoded.error().message);
  }
  uint64_t lead = offset & (geometry_.cluster_size - 1);
  std::memcpy(buffer.data(), cluster.data() + lead, buffer.size());
  return Ok();
}

Status QcowDriver::ReadPart(Entry entry, uint64_t offset, MutableBytes buffer) const {
  if (entry.empty()) return ReadUnmapped(offset, buffer);
  return entry.compressed() ? ReadCompressed(entry, offset, buffer)
                            : ReadPlain(entry, offset, buffer);
}

Status QcowDriver::Read(uint64_t offset, MutableBytes buffer) {
  IMG_RETURN_IF_ERROR(CheckRange(offset, buffer.size()));
  std::vector<Entry> entries;
  uint64_t cluster = geometry_.cluster_size;
  while (!buffer.empty()) {
    uint64_t lead = offset & (cluster - 1);
    IMG_RETURN_IF_ERROR(LoadEntries(offset, geometry_.ClustersOf(lead + buffer.size()), &entries));
    for (size_t i = 0; i < entries.size() && !buffer.empty();) {
      // Clusters that follow each other in the file, or are not there, are read at once.
      size_t run = 1;
      while (i + run < entries.size() && !entries[i].compressed() &&
             entries[i + run].raw == (entries[i].empty() ? 0 : entries[i].raw + run * cluster)) {
        ++run;
      }
      uint64_t length = std::min<uint64_t>(run * cluster - (offset & (cluster - 1)), buffer.size());
      IMG_RETURN_IF_ERROR(ReadPart(entries[i], offset, buffer.first(length)));
      buffer = buffer.subspan(length);
      offset += length;
      i += run;
    }
  }
  return Ok();
}

Result<BlockStatus> QcowDriver::StatusAt(uint64_t offset, uint64_t limit) {
  IMG_RETURN_IF_ERROR(CheckRange(offset, 1));
  uint64_t end = offset + std::max<uint64_t>(1, std::min(limit, VirtualSize() - offset));
  std::vector<Entry> entries;
  BlockStatus status;
  Entry first;
  uint64_t cluster = geometry_.cluster_size;
  for (uint64_t at = offset; at < end;) {
    IMG_ASSIGN_OR_RETURN(uint64_t table, L1Entry(at / geometry_.span));
    if (table == 0 && first.empty()) {  // tables that are not there are passed over together
      IMG_ASSIGN_OR_RETURN(at, NextMapped(at, end));
      continue;
    }
    IMG_RETURN_IF_ERROR(
        LoadEntries(at, geometry_.ClustersOf(end - AlignDown(at, cluster)), &entries));
    if (at == offset) first = entries[0];
    for (Entry entry : entries) {
      uint64_t passed = AlignDown(at, cluster) - AlignDown(offset, cluster);
      bool same =
          at == offset ||
          (first.empty() ? entry.empty() : !first.compressed() && entry.raw == first.raw + passed);
      if (!same) end = at;
      if (at >= end) break;
      at = std::min(end, AlignDown(at, cluster) + cluster);
    }
  }
  status.length = end - offset;
  if (first.empty()) return status;
  status.state = first.compressed() ? MappingState::kCompressed : MappingState::kData;
  if (!first.compressed()) status.host_offset = first.raw + (offset & (cluster - 1));
  return status;
}

const Format kFormat = {"qcow", kAliases,          "QEMU copy-on-write, version 1",
                        Probe,  Inspect,           QcowDriver::Open,
                        Create, CreateOptionHelp()};

}  // namespace imgfsck::qcow1
