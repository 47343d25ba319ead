// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/parse.h"

#include <algorithm>

#include "base/result.h"
#include "base/text.h"

namespace imgfsck::vhd {
namespace {

bool StartsWith(Bytes bytes, std::string_view cookie) {
  return AsText(bytes.first(cookie.size())) == cookie;
}

UniqueId IdAt(Bytes bytes, uint64_t at) {
  UniqueId id;
  std::ranges::copy(bytes.subspan(at, id.size()), id.begin());
  return id;
}

Locator ParseLocator(Bytes bytes) {
  return {.code = BeAt<uint32_t>(bytes, locator_at::kCode),
          .data_space = BeAt<uint32_t>(bytes, locator_at::kDataSpace),
          .data_length = BeAt<uint32_t>(bytes, locator_at::kDataLength),
          .reserved = BeAt<uint32_t>(bytes, locator_at::kReserved),
          .data_offset = BeAt<uint64_t>(bytes, locator_at::kDataOffset)};
}

}  // namespace

bool Footer::HasCookie() const { return StartsWith(raw, kFooterCookie); }
bool DynHeader::HasCookie() const { return StartsWith(raw, kHeaderCookie); }
bool BatmapHeader::HasCookie() const { return StartsWith(raw, kBatmapCookie); }

bool Footer::ChecksumValid() const {
  uint32_t sum = Checksum(raw, footer_at::kChecksum);
  if (sum == checksum) return true;
  bool old_tap = creator_app == kCreatorTap && creator_version <= 0x00010001;
  return old_tap && sum + hidden == checksum;  // NOT(s - h) == NOT(s) + h
}

bool DynHeader::ChecksumValid() const { return Checksum(raw, header_at::kChecksum) == checksum; }

std::optional<uint64_t> Locator::SpaceBytes() const {
  if (data_space < kSectorSize) return uint64_t{data_space} * kSectorSize;
  if (data_space % kSectorSize == 0) return data_space;
  return std::nullopt;
}

Footer ParseFooter(Bytes bytes) {
  IMG_CHECK(bytes.size() == kFooterSize || bytes.size() == kLegacyFooterSize);
  Footer f;
  std::ranges::copy(bytes, f.raw.begin());
  Bytes raw = f.raw;
  f.features = BeAt<uint32_t>(raw, footer_at::kFeatures);
  f.version = BeAt<uint32_t>(raw, footer_at::kVersion);
  f.data_offset = BeAt<uint64_t>(raw, footer_at::kDataOffset);
  f.timestamp = BeAt<uint32_t>(raw, footer_at::kTimestamp);
  f.creator_app = BeAt<uint32_t>(raw, footer_at::kCreatorApp);
  f.creator_version = BeAt<uint32_t>(raw, footer_at::kCreatorVersion);
  f.creator_os = BeAt<uint32_t>(raw, footer_at::kCreatorOs);
  f.original_size = BeAt<uint64_t>(raw, footer_at::kOriginalSize);
  f.current_size = BeAt<uint64_t>(raw, footer_at::kCurrentSize);
  f.geometry = {BeAt<uint16_t>(raw, footer_at::kCylinders), raw[footer_at::kHeads],
                raw[footer_at::kSectorsPerTrack]};
  f.disk_type = BeAt<uint32_t>(raw, footer_at::kDiskType);
  f.checksum = BeAt<uint32_t>(raw, footer_at::kChecksum);
  f.unique_id = IdAt(raw, footer_at::kUniqueId);
  f.saved_state = raw[footer_at::kSavedState];
  f.hidden = raw[footer_at::kHidden];
  return f;
}

DynHeader ParseHeader(Bytes bytes) {
  IMG_CHECK(bytes.size() == kHeaderSize);
  DynHeader h;
  std::ranges::copy(bytes, h.raw.begin());
  h.next_offset = BeAt<uint64_t>(bytes, header_at::kNextOffset);
  h.table_offset = BeAt<uint64_t>(bytes, header_at::kTableOffset);
  h.version = BeAt<uint32_t>(bytes, header_at::kVersion);
  h.max_entries = BeAt<uint32_t>(bytes, header_at::kMaxEntries);
  h.block_size = BeAt<uint32_t>(bytes, header_at::kBlockSize);
  h.checksum = BeAt<uint32_t>(bytes, header_at::kChecksum);
  h.parent_id = IdAt(bytes, header_at::kParentId);
  h.parent_timestamp = BeAt<uint32_t>(bytes, header_at::kParentTimestamp);
  for (size_t i = 0; i < kLocatorCount; ++i) {
    h.locators[i] =
        ParseLocator(bytes.subspan(header_at::kLocators + i * kLocatorSize, kLocatorSize));
  }
  return h;
}

BatmapHeader ParseBatmapHeader(Bytes bytes) {
  IMG_CHECK(bytes.size() == kBatmapHeaderSize);
  BatmapHeader b;
  std::ranges::copy(bytes, b.raw.begin());
  b.offset = BeAt<uint64_t>(bytes, batmap_at::kOffset);
  b.sectors = BeAt<uint32_t>(bytes, batmap_at::kSectors);
  b.version = BeAt<uint32_t>(bytes, batmap_at::kVersion);
  b.checksum = BeAt<uint32_t>(bytes, batmap_at::kChecksum);
  b.marker = bytes[batmap_at::kMarker];
  b.key_flag = bytes[batmap_at::kKeyFlag];
  return b;
}

uint32_t Checksum(Bytes bytes, uint64_t checksum_at) {
  uint32_t sum = MapSum(0, bytes, kBatmapVersion);
  for (uint8_t byte : bytes.subspan(checksum_at, sizeof sum)) sum -= byte;
  return ~sum;
}

uint32_t MapSum(uint32_t sum, Bytes bytes, uint32_t version) {
  for (uint8_t byte : bytes) {
    bool negative = version == kBatmapVersionSigned && byte >= 0x80;
    sum += negative ? byte - 0x100u : byte;
  }
  return sum;
}

uint32_t MapChecksum(Bytes bytes, uint32_t version) { return ~MapSum(0, bytes, version); }

std::string FourCcText(uint32_t code) {
  std::array<uint8_t, 4> bytes;
  StoreBe(bytes.data(), code);
  return Printable(AsText(bytes));
}

}  // namespace imgfsck::vhd
