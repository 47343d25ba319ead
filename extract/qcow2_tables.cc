// SPDX-License-Identifier: Apache-2.0
#include "extract/qcow2_tables.h"

#include <algorithm>

#include "analyzers/qcow2/refcounts.h"
#include "formats/qcow2/entry.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kMostSnapshots = 4096, kMostBitmaps = 4096;  // of one lost table

// Files get cut: an offset somewhat behind the end still makes sense.
bool WithinReach(const Image& image, uint64_t offset) {
  uint64_t most = SaturatingMul(std::max(image.file_size, image.header.size), 2);
  return offset < std::min(SaturatingAdd(most, 64 * kMiB), kMaxHostOffset);
}

bool EntryMakesSense(const Image& image, const Entry& entry) {
  const Geometry& g = image.geometry;
  if (entry.compressed()) {
    return !entry.copied() && (entry.descriptor & CompressedReserved(g)) == 0 &&
           entry.subclusters == 0 &&
           WithinReach(image, DecodeCompressed(g, entry.descriptor).offset);
  }
  uint64_t reserved = kL2Reserved | (g.extended_l2 ? kZeroFlag : 0);
  if ((entry.descriptor & reserved) != 0 || (entry.alloc_bits() & entry.zero_bits()) != 0) {
    return false;
  }
  if (entry.host() == 0 && entry.alloc_bits() != 0) return false;
  return IsAligned(entry.host(), g.cluster_size) && WithinReach(image, entry.host());
}

bool PlainWordsMakeSense(const Image& image, Bytes bytes) {
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint64_t word = LoadBe<uint64_t>(&bytes[at]);
    uint64_t offset = word & kOffsetMask;
    if ((word & (kL2Reserved | kCompressed)) != 0 ||
        !IsAligned(offset, image.geometry.cluster_size) || !WithinReach(image, offset)) {
      return false;
    }
  }
  return true;
}

bool IsPrintable(const std::string& text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c != 0x7F; });
}

}  // namespace

bool IsTable(const Image& image, Bytes bytes) {
  if (PlainWordsMakeSense(image, bytes)) return true;
  const Geometry& g = image.geometry;
  if (bytes.size() % g.l2_entry_size != 0) return false;
  for (uint64_t i = 0; i < bytes.size() / g.l2_entry_size; ++i) {
    if (!EntryMakesSense(image, LoadEntry(g, bytes, i))) return false;
  }
  return true;
}

bool IsRefcountBlock(const Image& image, Bytes bytes) {
  const Geometry& g = image.geometry;
  unsigned order = image.refcounts_usable ? g.refcount_order : 4;
  if (order < 3) {
    // Counts of one: all bits set, or the lowest of each.
    uint64_t odd = 0;
    const uint8_t ones = order == 0 ? 0xFF : order == 1 ? 0x55 : 0x11;
    for (uint8_t byte : bytes) odd += byte != 0 && byte != ones;
    return odd <= 8;
  }
  const uint64_t most = 2 + image.LayerCount() + g.cluster_size / 64;
  for (uint64_t i = 0; i < bytes.size() * 8 >> order; ++i) {
    if (LoadRefcount(bytes, order, i) > most) return false;
  }
  return true;
}

std::optional<ByteVector> MendedTable(const Image& image, Bytes bytes) {
  const Geometry& g = image.geometry;
  if (bytes.size() % g.l2_entry_size != 0) return std::nullopt;
  uint64_t used = 0, wrong = 0;
  for (uint64_t i = 0; i < bytes.size() / g.l2_entry_size; ++i) {
    const Entry entry = LoadEntry(g, bytes, i);
    used += !entry.empty();
    wrong += !EntryMakesSense(image, entry);
  }
  if (used < 8 || wrong * 4 > used) return std::nullopt;
  return WithoutNonsense(image, bytes);
}

ByteVector WithoutNonsense(const Image& image, Bytes bytes) {
  constexpr uint64_t kNonsense = 0x3F00000000000000;  // reserved bits
  const Geometry& g = image.geometry;
  ByteVector out(bytes.begin(), bytes.end());
  for (uint64_t i = 0; i < bytes.size() / g.l2_entry_size; ++i) {
    if (!EntryMakesSense(image, LoadEntry(g, bytes, i))) StoreEntry(g, out, i, {kNonsense, 0});
  }
  return out;
}

std::vector<Snapshot> SnapshotsAt(const Image& image, uint64_t offset) {
  std::vector<Snapshot> found;
  while (found.size() < kMostSnapshots) {
    auto s = ParseSnapshotAt(*image.source, offset);
    if (!s || s->id.empty() || !IsPrintable(s->id) || s->l1_table_offset == 0 || s->l1_size == 0 ||
        !IsAligned(s->l1_table_offset, image.geometry.cluster_size) ||
        !WithinReach(image, s->l1_table_offset) || s->extra_data_size > kMaxSnapshotExtra) {
      break;
    }
    offset = AlignUp(offset + s->length, 8);
    found.push_back(std::move(*s));
  }
  return found;
}

std::vector<Bitmap> BitmapsAt(const Image& image, uint64_t offset) {
  std::vector<Bitmap> found;
  const uint64_t room = image.file_size - std::min(offset, image.file_size);
  BitmapsExtension extension{1, 0, std::min(room, image.geometry.cluster_size), offset};
  if (extension.directory_size == 0) return found;
  for (Bitmap& b : ParseBitmapDirectory(*image.source, image.geometry, extension).entries) {
    if (b.table_offset == 0 || !IsAligned(b.table_offset, image.geometry.cluster_size) ||
        !WithinReach(image, b.table_offset) || b.type != 1 ||
        b.granularity_bits < kMinGranularityBits || b.granularity_bits > kMaxGranularityBits ||
        b.name.empty() || !IsPrintable(b.name) || found.size() == kMostBitmaps) {
      break;
    }
    found.push_back(std::move(b));
  }
  return found;
}

bool IsLuksHeader(Bytes bytes) {
  static constexpr uint8_t kLuksMagic[] = {'L', 'U', 'K', 'S', 0xBA, 0xBE};
  return bytes.size() >= kLuksHeaderSize &&
         std::equal(std::begin(kLuksMagic), std::end(kLuksMagic), bytes.begin());
}

}  // namespace imgfsck::qcow2
