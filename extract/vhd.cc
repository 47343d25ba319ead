// SPDX-License-Identifier: Apache-2.0
// Of a VHD: footers, dynamic header, block table, batmap, locators and sector bitmaps; and what a
// check looked at elsewhere, as far as it can be a structure that lost its place.
#include <algorithm>

#include "analyzers/vhd/state.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "extract/selection.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/bat.h"
#include "formats/vhd/links.h"

namespace imgfsck {
namespace {

using vhd::Image;

// A footer, header or batmap, or the guest's partition table by whose end a lost size is found.
bool HasCookie(Bytes sector) {
  static constexpr std::string_view kCookies[] = {
      vhd::kFooterCookie, vhd::kHeaderCookie, vhd::kBatmapCookie, vhd::kPoisonCookie, "EFI PART"};
  const std::string_view text = AsText(sector);
  return std::ranges::any_of(kCookies, [&](auto cookie) { return text.starts_with(cookie); });
}

// Nothing but entries of a block table.
bool IsBlockTable(Bytes sector, uint64_t file_sectors) {
  for (size_t at = 0; at + 4 <= sector.size(); at += 4) {
    const auto entry = LoadBe<uint32_t>(&sector[at]);
    if (entry != vhd::kUnallocated && entry >= file_sectors) return false;
  }
  return true;
}

Status KeepStrayStructures(Selection& selection) {
  const uint64_t size = selection.source.Size();
  ByteVector sector(kSector);
  for (const auto& [begin, end] : selection.read.Ranges()) {
    IMG_RETURN_IF_ERROR(CheckStop());
    for (uint64_t at = AlignDown(begin, kSector); at < std::min(end, size); at += kSector) {
      std::vector<HostRange> bad;
      ReadTolerant(selection.source, at, sector, &bad);
      if (AllZero(sector)) continue;
      if (HasCookie(sector) || IsBlockTable(sector, size / kSector)) {
        selection.copy.Keep(at, kSector);
      }
    }
  }
  return Ok();
}

std::u16string Units(Bytes bytes, bool wide, bool big_endian) {
  std::u16string units;
  for (size_t i = 0; i + (wide ? 2 : 1) <= bytes.size(); i += wide ? 2 : 1) {
    units.push_back(!wide        ? static_cast<char16_t>(bytes[i])
                    : big_endian ? LoadBe<uint16_t>(&bytes[i])
                                 : LoadLe<uint16_t>(&bytes[i]));
  }
  return units;
}

// `bytes` with the path in it, up to the padding, replaced.
ByteVector RedactedPath(Pseudonyms& names, Bytes bytes, bool wide, bool big_endian) {
  std::u16string units = Units(bytes, wide, big_endian);
  const size_t length = units.find_last_not_of(u'\0') + 1;
  const std::u16string path = names.Path(units.substr(0, length));
  ByteVector out(bytes.begin(), bytes.end());
  for (size_t i = 0; i < path.size(); ++i) {
    if (!wide) {
      out[i] = static_cast<uint8_t>(path[i]);
    } else if (big_endian) {
      StoreBe<uint16_t>(&out[2 * i], path[i]);
    } else {
      StoreLe<uint16_t>(&out[2 * i], path[i]);
    }
  }
  return out;
}

// The checksum stays as right or wrong as it is.
void RedactHeader(Selection& selection, const Image& image) {
  if (image.header_state == vhd::SlotState::kAbsent) return;
  ByteVector raw(image.stored_header.raw.begin(), image.stored_header.raw.end());
  const ByteVector name =
      RedactedPath(selection.names, image.stored_header.ParentName(), true, true);
  uint32_t difference = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    uint8_t& byte = raw[vhd::header_at::kParentName + i];
    difference += uint32_t{name[i]} - byte;
    byte = name[i];
  }
  PutBe(raw, vhd::header_at::kChecksum, image.stored_header.checksum - difference);
  selection.copy.Replace(image.header_offset, raw);
}

void RedactLocators(Selection& selection, const Image& image) {
  for (const vhd::ParentPointer& pointer : vhd::ParentPointers(image)) {
    const vhd::Locator& locator = pointer.locator;
    if (!pointer.in_file || locator.data_length == 0) continue;
    ByteVector payload(locator.data_length);
    std::vector<HostRange> bad;
    ReadTolerant(selection.source, locator.data_offset, payload, &bad);
    const bool wide = locator.code == vhd::kLocatorW2ru || locator.code == vhd::kLocatorW2ku;
    selection.copy.Replace(locator.data_offset,
                           vhd::IsKnownLocator(locator.code)
                               ? RedactedPath(selection.names, payload, wide, false)
                               : WithoutText(payload, true));
  }
}

}  // namespace

Status SelectVhd(Selection& selection) {
  const Image& image = *vhd::StateOf(selection.report).image;
  IMG_RETURN_IF_ERROR(KeepMetadataRegions(selection));
  if (image.trailing.state != vhd::SlotState::kAbsent) {
    selection.copy.Keep(image.trailing.offset, image.trailing.length);
  }
  IMG_RETURN_IF_ERROR(KeepStrayStructures(selection));
  if (selection.options.redact && image.sparse()) {
    RedactHeader(selection, image);
    RedactLocators(selection, image);
  }
  return Ok();
}

}  // namespace imgfsck
