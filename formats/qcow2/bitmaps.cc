// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/bitmaps.h"

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kFixedSize = 24;

}  // namespace

std::optional<BitmapsExtension> ParseBitmapsExtension(const Extension& record) {
  if (record.data.size() < kBitmapsExtLength) return std::nullopt;
  BitmapsExtension e;
  e.nb_bitmaps = BeAt<uint32_t>(record.data, 0);
  e.reserved = BeAt<uint32_t>(record.data, 4);
  e.directory_size = BeAt<uint64_t>(record.data, 8);
  e.directory_offset = BeAt<uint64_t>(record.data, 16);
  return e;
}

ByteVector EncodeBitmapsExtension(const BitmapsExtension& e) {
  ByteVector b(kBitmapsExtLength);
  PutBe(b, 0, e.nb_bitmaps);
  PutBe(b, 4, e.reserved);
  PutBe(b, 8, e.directory_size);
  PutBe(b, 16, e.directory_offset);
  return b;
}

std::optional<uint64_t> BitmapTableEntries(uint64_t size, unsigned granularity_bits,
                                           uint64_t cluster_size) {
  if (granularity_bits > 63) return std::nullopt;
  uint64_t bits = DivRoundUp(size, uint64_t{1} << granularity_bits);
  return DivRoundUp(DivRoundUp(bits, 8), cluster_size);
}

BitmapDirectory ParseBitmapDirectory(const ByteSource& source, const Geometry& geometry,
                                     const BitmapsExtension& extension) {
  BitmapDirectory directory;
  directory.offset = extension.directory_offset;
  directory.size = extension.directory_size;
  if (directory.offset == 0 || !IsAligned(directory.offset, geometry.cluster_size) ||
      directory.size == 0 || directory.size > kMaxBitmapDirectoryBytes ||
      !RangeFits(directory.offset, directory.size, AlignUp(source.Size(), geometry.cluster_size))) {
    return directory;
  }
  ByteVector bytes(directory.size);
  // Once more, as a check will ask later whether the place can be read: when it can be then, what
  // failed here must not be taken for damage.
  if (!ReadPadded(source, directory.offset, bytes) &&
      !ReadPadded(source, directory.offset, bytes)) {
    return directory;
  }
  directory.readable = true;
  uint64_t at = 0;
  while (at < bytes.size() && directory.entries.size() < kMaxBitmaps) {
    if (!RangeFits(at, kFixedSize, bytes.size())) break;
    Bytes b = Bytes(bytes).subspan(at);
    Bitmap bitmap;
    bitmap.host_offset = directory.offset + at;
    bitmap.table_offset = BeAt<uint64_t>(b, 0);
    bitmap.table_size = BeAt<uint32_t>(b, 8);
    bitmap.flags = BeAt<uint32_t>(b, 12);
    bitmap.type = b[16];
    bitmap.granularity_bits = b[17];
    uint16_t name_size = BeAt<uint16_t>(b, 18);
    bitmap.extra_data_size = BeAt<uint32_t>(b, 20);
    uint64_t used = kFixedSize + bitmap.extra_data_size + name_size;
    bitmap.length = AlignUp(used, 8);
    if (!RangeFits(0, bitmap.length, b.size())) {
      bitmap.name.resize(name_size);
      directory.misfit = std::move(bitmap);
      break;
    }
    bitmap.name.assign(AsText(b.subspan(kFixedSize + bitmap.extra_data_size, name_size)));
    bitmap.padding_zero = AllZero(b.subspan(used, bitmap.length - used));
    at += bitmap.length;
    directory.entries.push_back(std::move(bitmap));
  }
  directory.parsed_bytes = at;
  directory.broken = at < bytes.size();
  return directory;
}

ByteVector EncodeBitmapEntry(const Bitmap& bitmap) {
  ByteVector b(AlignUp(kFixedSize + bitmap.name.size(), 8));
  PutBe(b, 0, bitmap.table_offset);
  PutBe(b, 8, bitmap.table_size);
  PutBe(b, 12, bitmap.flags);
  b[16] = bitmap.type;
  b[17] = bitmap.granularity_bits;
  PutBe(b, 18, static_cast<uint16_t>(bitmap.name.size()));
  std::ranges::copy(bitmap.name, b.begin() + kFixedSize);
  return b;
}

}  // namespace imgfsck::qcow2
