// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/encode.h"

#include <algorithm>

#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

void PutText(MutableBytes bytes, uint64_t at, std::string_view text) {
  std::ranges::copy(AsBytes(text), bytes.subspan(at, text.size()).begin());
}

void PutId(MutableBytes bytes, uint64_t at, const UniqueId& id) {
  std::ranges::copy(id, bytes.subspan(at, id.size()).begin());
}

void PutLocator(MutableBytes bytes, const Locator& locator) {
  PutBe(bytes, locator_at::kCode, locator.code);
  PutBe(bytes, locator_at::kDataSpace, locator.data_space);
  PutBe(bytes, locator_at::kDataLength, locator.data_length);
  PutBe(bytes, locator_at::kReserved, locator.reserved);
  PutBe(bytes, locator_at::kDataOffset, locator.data_offset);
}

}  // namespace

Bytes Seal(Footer* f) {
  MutableBytes raw = f->raw;
  PutText(raw, footer_at::kCookie, kFooterCookie);
  PutBe(raw, footer_at::kFeatures, f->features);
  PutBe(raw, footer_at::kVersion, f->version);
  PutBe(raw, footer_at::kDataOffset, f->data_offset);
  PutBe(raw, footer_at::kTimestamp, f->timestamp);
  PutBe(raw, footer_at::kCreatorApp, f->creator_app);
  PutBe(raw, footer_at::kCreatorVersion, f->creator_version);
  PutBe(raw, footer_at::kCreatorOs, f->creator_os);
  PutBe(raw, footer_at::kOriginalSize, f->original_size);
  PutBe(raw, footer_at::kCurrentSize, f->current_size);
  PutBe(raw, footer_at::kCylinders, f->geometry.cylinders);
  raw[footer_at::kHeads] = f->geometry.heads;
  raw[footer_at::kSectorsPerTrack] = f->geometry.sectors_per_track;
  PutBe(raw, footer_at::kDiskType, f->disk_type);
  PutId(raw, footer_at::kUniqueId, f->unique_id);
  raw[footer_at::kSavedState] = f->saved_state;
  raw[footer_at::kHidden] = f->hidden;
  f->checksum = Checksum(raw, footer_at::kChecksum);
  PutBe(raw, footer_at::kChecksum, f->checksum);
  return raw;
}

Bytes Seal(DynHeader* h) {
  MutableBytes raw = h->raw;
  PutText(raw, header_at::kCookie, kHeaderCookie);
  PutBe(raw, header_at::kNextOffset, h->next_offset);
  PutBe(raw, header_at::kTableOffset, h->table_offset);
  PutBe(raw, header_at::kVersion, h->version);
  PutBe(raw, header_at::kMaxEntries, h->max_entries);
  PutBe(raw, header_at::kBlockSize, h->block_size);
  PutId(raw, header_at::kParentId, h->parent_id);
  PutBe(raw, header_at::kParentTimestamp, h->parent_timestamp);
  for (size_t i = 0; i < kLocatorCount; ++i) {
    PutLocator(raw.subspan(header_at::kLocators + i * kLocatorSize, kLocatorSize), h->locators[i]);
  }
  h->checksum = Checksum(raw, header_at::kChecksum);
  PutBe(raw, header_at::kChecksum, h->checksum);
  return raw;
}

Bytes Seal(BatmapHeader* b) {
  MutableBytes raw = b->raw;
  PutText(raw, batmap_at::kCookie, kBatmapCookie);
  PutBe(raw, batmap_at::kOffset, b->offset);
  PutBe(raw, batmap_at::kSectors, b->sectors);
  PutBe(raw, batmap_at::kVersion, b->version);
  PutBe(raw, batmap_at::kChecksum, b->checksum);
  raw[batmap_at::kMarker] = b->marker;
  raw[batmap_at::kKeyFlag] = b->key_flag;
  return raw;
}

void RemoveParent(DynHeader* h) {
  h->parent_id = {};
  h->parent_timestamp = 0;
  h->locators = {};
  std::fill_n(h->raw.begin() + header_at::kParentName, kParentNameSize, uint8_t{0});
}

bool SetParentName(DynHeader* header, std::string_view utf8) {
  MutableBytes name = MutableBytes(header->raw).subspan(header_at::kParentName, kParentNameSize);
  std::ranges::fill(name, uint8_t{0});
  ByteVector encoded = EncodeUtf16(utf8, ByteOrder::kBig);
  size_t fits = std::min<size_t>(encoded.size(), kParentNameSize - 2);  // a NUL stays at the end
  std::copy_n(encoded.begin(), fits, name.begin());
  return fits == encoded.size();
}

}  // namespace imgfsck::vhd
