// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_header.h"

#include <fmt/format.h>

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

// Known extensions in the order in which QEMU writes them; unknown ones follow.
int Rank(uint32_t type) {
  switch (type) {
    case kExtBackingFormat:
      return 0;
    case kExtDataFile:
      return 1;
    case kExtEncryption:
      return 2;
    case kExtFeatureNames:
      return 3;
    case kExtBitmaps:
      return 4;
    default:
      return 5;
  }
}

void AppendRecord(uint32_t type, Bytes data, ByteVector* out) {
  size_t at = out->size();
  out->resize(at + 8 + AlignUp(data.size(), 8));
  StoreBe(&(*out)[at], type);
  StoreBe(&(*out)[at + 4], static_cast<uint32_t>(data.size()));
  std::ranges::copy(data, out->begin() + static_cast<ptrdiff_t>(at + 8));
}

}  // namespace

Result<HeaderArea> HeaderArea::Parse(Bytes cluster) {
  HeaderArea area;
  area.header = ParseHeader(cluster);
  ExtensionArea extensions = ParseExtensions(area.header, cluster);
  if (extensions.overrun || extensions.begin > cluster.size()) {
    return Error{ErrorCode::kInvalid, "a header extension does not fit into the first cluster",
                 extensions.overrun};
  }
  Bytes fields = cluster.first(extensions.begin);
  area.fields.assign(fields.begin(), fields.end());
  for (const Extension& record : extensions.records) {
    area.records.push_back({record.type, ByteVector(record.data.begin(), record.data.end())});
  }
  area.backing_name = BackingName(area.header, cluster);
  return area;
}

void HeaderArea::SetExtension(uint32_t type, std::optional<ByteVector> extension) {
  std::erase_if(records, [type](const Record& record) { return record.type == type; });
  if (!extension) return;
  auto at = std::ranges::find_if(
      records, [type](const Record& record) { return Rank(record.type) > Rank(type); });
  records.insert(at, Record{type, std::move(*extension)});
}

Result<ByteVector> HeaderArea::Encode() {
  const uint64_t size = uint64_t{1} << header.cluster_bits;
  ByteVector cluster = fields;
  for (const Record& record : records) AppendRecord(record.type, record.data, &cluster);
  AppendRecord(kExtEnd, {}, &cluster);
  header.backing_file_offset = 0;
  header.backing_file_size = 0;
  if (backing_name) {
    header.backing_file_offset = cluster.size();
    header.backing_file_size = static_cast<uint32_t>(backing_name->size());
    cluster.insert(cluster.end(), backing_name->begin(), backing_name->end());
  }
  if (cluster.size() > size || size < kHeaderLengthCurrent) {
    return Error{ErrorCode::kTooLarge,
                 fmt::format("header, extensions and backing file name take {} bytes, a cluster "
                             "has {}",
                             cluster.size(), size),
                 {}};
  }
  cluster.resize(size);
  EncodeHeader(header, cluster);
  return cluster;
}

ByteVector FeatureNames() {
  struct Name {
    uint8_t type, bit;
    std::string_view name;
  };
  static constexpr Name kNames[] = {
      {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
      {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
      {2, 0, "bitmaps"},          {2, 1, "raw external data"}};
  ByteVector table(std::size(kNames) * kFeatureNameSize);
  for (size_t i = 0; i < std::size(kNames); ++i) {
    uint8_t* record = &table[i * kFeatureNameSize];
    record[0] = kNames[i].type;
    record[1] = kNames[i].bit;
    std::ranges::copy(kNames[i].name, record + 2);
  }
  return table;
}

}  // namespace imgfsck::qcow2
