// SPDX-License-Identifier: Apache-2.0
#include "extract/qcow2_names.h"

#include <algorithm>

#include "extract/qcow2_tables.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kBitmapFixed = 24;

// Where the LUKS header has what tells this disk, or a passphrase, from another (section 10).
constexpr uint64_t kDigest = 112, kDigestEnd = 164, kUuid = 168, kUuidEnd = 208, kSlots = 208,
                   kSlotSize = 48, kSlotSalt = 8, kSaltSize = 32;

void Blank(MutableBytes bytes) {
  for (uint8_t& byte : bytes) byte = byte == 0 ? uint8_t{0} : uint8_t{'x'};
}

// Extensions whose data a check needs as it is.
bool IsNeeded(uint32_t type) {
  return type == kExtBackingFormat || type == kExtFeatureNames || type == kExtBitmaps ||
         type == kExtEncryption;
}

}  // namespace

void Qcow2Names::RedactListed() {
  if (!wanted()) return;
  // A header that is worked out from the tables is not what stands in the file.
  if (state_.reconstructed) {
    RedactHead(image_.first_cluster.size());
  } else {
    RedactFirstCluster();
  }
  RedactSnapshots();
  RedactBitmaps();
  if (image_.encryption) RedactLuks(image_.encryption->offset);
}

// Header, records and the fields in them stay; names become others, all else becomes x.
void Qcow2Names::RedactFirstCluster() {
  ByteVector bytes = image_.first_cluster;
  const uint64_t size = bytes.size();
  std::vector<bool> stays(size, false);
  auto keep = [&](uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < std::min(end, size); ++i) stays[i] = true;
  };
  // (The version may be what is wrong.)
  keep(0,
       std::max(image_.extensions.begin, state_.recovery ? kHeaderLengthCurrent : kHeaderLengthV2));
  for (const Extension& record : image_.extensions.records) {
    keep(record.offset, record.offset + 8);
    if (IsNeeded(record.type)) keep(record.offset + 8, record.offset + 8 + record.data.size());
  }
  for (uint64_t i = 0; i < size; ++i) {
    if (!stays[i] && bytes[i] != 0) bytes[i] = 'x';
  }
  auto put = [&](uint64_t begin, const std::string& name) {
    const std::string other = selection_.RedactedPath(name);
    for (uint64_t i = 0; i < other.size() && begin + i < size; ++i) {
      if (!stays[begin + i]) bytes[begin + i] = static_cast<uint8_t>(other[i]);
    }
  };
  if (image_.backing_name) put(image_.header.backing_file_offset, *image_.backing_name);
  const Extension* data_file = image_.extensions.Find(kExtDataFile);
  if (data_file != nullptr && image_.data_file_name) {
    put(data_file->offset + 8, *image_.data_file_name);
  }
  selection_.copy.Replace(0, bytes);
}

void Qcow2Names::Replace(uint64_t offset, Bytes bytes) {
  const uint64_t cluster = offset >> image_.geometry.cluster_bits;
  if (bytes.empty() || state_.claims().IsConflict(cluster)) return;
  selection_.copy.Replace(offset, bytes);
}

void Qcow2Names::Redact(const Snapshot& s) {
  if (!wanted()) return;
  const uint64_t name = s.host_offset + s.length - s.name.size();
  Replace(name, AsBytes(selection_.names.Name(s.name)));
}

void Qcow2Names::Redact(const Bitmap& b) {
  if (!wanted()) return;
  const uint64_t name = b.host_offset + kBitmapFixed + b.extra_data_size;
  Replace(name, AsBytes(selection_.names.Name(b.name)));
}

void Qcow2Names::RedactSnapshots() {
  const SnapshotTable& table = image_.snapshots;
  for (const Snapshot& s : table.entries) Redact(s);
  if (table.offset == 0) return;
  // Entries that the header does not count.
  uint64_t end = AlignUp(table.end, 8);
  for (const Snapshot& s : SnapshotsAt(image_, end)) {
    Redact(s);
    end = AlignUp(s.host_offset + s.length, 8);
  }
  if (!table.entries.empty() || end != table.offset) {
    RedactRest(end, AlignUp(end, image_.geometry.cluster_size));
  }
}

void Qcow2Names::RedactBitmaps() {
  const BitmapDirectory& directory = image_.bitmaps;
  if (!directory.readable) return;
  for (const Bitmap& b : directory.entries) Redact(b);
  RedactRest(directory.offset + directory.parsed_bytes,
             AlignUp(directory.offset + directory.size, image_.geometry.cluster_size));
}

void Qcow2Names::RedactRest(uint64_t begin, uint64_t end) {
  end = std::min(end, image_.file_size);
  if (begin >= end) return;
  ByteVector bytes(end - begin);
  std::vector<HostRange> bad;
  ReadTolerant(*image_.source, begin, bytes, &bad);
  const ByteVector blank = WithoutText(bytes, false);
  if (blank != bytes) Replace(begin, blank);
}

void Qcow2Names::RedactLuks(uint64_t offset) {
  if (!wanted()) return;
  ByteVector header(kLuksHeaderSize);
  std::vector<HostRange> bad;
  ReadTolerant(*image_.source, offset, header, &bad);
  if (!IsLuksHeader(header)) return;
  MutableBytes bytes = header;
  Blank(bytes.subspan(kDigest, kDigestEnd - kDigest));
  Blank(bytes.subspan(kUuid, kUuidEnd - kUuid));
  for (uint64_t slot = 0; slot < 8; ++slot) {
    Blank(bytes.subspan(kSlots + slot * kSlotSize + kSlotSalt, kSaltSize));
  }
  selection_.copy.Replace(offset, header);
}

void Qcow2Names::RedactHead(uint64_t length) {
  if (!wanted()) return;
  ByteVector bytes(std::min(length, image_.file_size));
  std::vector<HostRange> bad;
  ReadTolerant(selection_.source, 0, bytes, &bad);
  const uint64_t fields = std::min<uint64_t>(kHeaderLengthCurrent, bytes.size());
  Blank(MutableBytes(bytes).subspan(fields));
  selection_.copy.Replace(0, bytes);
}

}  // namespace imgfsck::qcow2
