// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/footers.h"
#include "formats/vhd/header.h"
#include "formats/vhd/infer.h"
#include "formats/vhd/salvage.h"

namespace imgfsck::vhd {
namespace {

bool TypeKnown(uint32_t type) { return type >= 2 && type <= 4; }

bool NamesParent(const DynHeader& h) {
  return !IsNull(h.parent_id) || !AllZero(h.ParentName()) ||
         std::ranges::any_of(h.locators, [](const Locator& l) { return l.code != kLocatorNone; });
}

// The type a footer names may be damaged, or contradict what is there.
void SettleKind(Image* image, bool have_header) {
  uint32_t type = image->footer.disk_type;
  for (const FooterSlot* other : {&image->leading, &image->trailing}) {
    if (TypeKnown(type)) break;
    if (other->believable()) type = other->footer.disk_type;
  }
  bool header_named = have_header && image->header_state == SlotState::kSound &&
                      image->header_offset == image->footer.data_offset;
  if (TypeKnown(type) && type != 2) {
    bool really_fixed = !have_header && image->footer.data_offset >= kNoOffsetOfSpec &&
                        image->trailing.believable() &&
                        image->footer.current_size == image->trailing.offset;
    image->kind = really_fixed ? Kind::kFixed : type == 3 ? Kind::kDynamic : Kind::kDifferencing;
  } else if ((type == 2 && header_named) || (!TypeKnown(type) && have_header)) {
    image->kind = NamesParent(image->stored_header) ? Kind::kDifferencing : Kind::kDynamic;
  } else {
    image->kind = Kind::kFixed;
  }
}

void LocateTables(Image* image) {
  const DynHeader& h = image->header;
  image->block_size = h.block_size;
  image->bitmap_bytes = vhd::BitmapBytes(h.block_size);
  image->bat_offset = h.table_offset;
  image->bat_entries = h.max_entries;
  uint64_t room = image->DataEnd() - std::min(image->DataEnd(), image->bat_offset);
  image->bat_stored = std::min(image->bat_entries, room / 4);
  image->batmap_offset = SaturatingAdd(image->bat_offset, image->BatBytes());
  image->batmap.reset();
  if (!RangeFits(image->batmap_offset, kBatmapHeaderSize, image->file_size)) return;
  std::array<uint8_t, kBatmapHeaderSize> bytes;
  ReadTolerant(*image->source, image->batmap_offset, bytes, &image->unreadable);
  BatmapHeader header = ParseBatmapHeader(bytes);
  if (header.HasCookie()) image->batmap = header;
}

// Both footers are gone. What kind of disk was this?
void MakeUp(Image* image, bool search, bool make_up) {
  if (FindHeader(image, search)) {
    Bytes raw = image->stored_header.raw;
    image->kind = NamesParent(image->stored_header) ? Kind::kDifferencing : Kind::kDynamic;
    image->footer.data_offset = image->header_offset;
    ChooseHeader(image);
    LocateTables(image);
    Inferred size = InferDiskSize(*image);
    auto type = image->kind == Kind::kDynamic ? DiskType::kDynamic : DiskType::kDifferencing;
    image->footer = MakeUpFooter(type, size.value, image->header_offset, raw);
    image->footer_from = {Origin::kInferred, size.confidence, size.evidence};
    return;
  }
  image->kind = Kind::kFixed;
  if (!make_up) return;
  // A fixed disk: its footer was overwritten in its place, or cut off.
  Inferred size = InferFixedSize(*image);
  std::array<uint8_t, kSectorSize> seed;
  ReadTolerant(*image->source, 0, seed, &image->unreadable);
  image->footer = MakeUpFooter(DiskType::kFixed, size.value, kNoOffset, seed);
  image->footer_from = {Origin::kInferred, size.confidence, size.evidence};
}

}  // namespace

void ListRegions(Image* image) {
  auto& regions = image->regions;
  regions = {{0, kFooterSize, "footer-copy", "footer-copy"},
             {image->header_offset, kHeaderSize, "dynamic-header", "header"}};
  uint64_t room = image->DataEnd() - std::min(image->DataEnd(), image->bat_offset);
  if (uint64_t length = std::min(image->BatBytes(), room)) {
    regions.push_back({image->bat_offset, length, "bat", "bat"});
  }
  if (image->batmap) {
    regions.push_back({image->batmap_offset, kBatmapHeaderSize, "batmap", "batmap"});
    if (image->BatmapUsable()) {
      regions.push_back({image->batmap->offset, image->BatmapBytes(), "batmap", "batmap-map"});
    }
  }
  for (size_t i = 0; i < kLocatorCount; ++i) {
    const Locator& locator = image->header.locators[i];
    if (locator.code == kLocatorNone || locator.data_length == 0) continue;
    uint64_t length = std::max<uint64_t>(locator.SpaceBytes().value_or(0), locator.data_length);
    if (!RangeFits(locator.data_offset, length, image->file_size)) continue;
    regions.push_back({locator.data_offset, length, "locator", fmt::format("locator[{}]", i)});
  }
  std::ranges::sort(regions, {}, [](const MetaRegion& r) { return std::pair(r.offset, r.length); });
}

std::string_view ToText(Kind kind) {
  switch (kind) {
    case Kind::kFixed:
      return "fixed";
    case Kind::kDynamic:
      return "dynamic";
    case Kind::kDifferencing:
      return "differencing";
  }
  return "";
}

uint64_t Image::BlocksNeeded() const {
  if (block_size == 0) return 0;
  return DivRoundUp(std::max(footer.current_size, VirtualSize()), block_size);
}

uint64_t Image::BatmapBytes() const { return batmap ? uint64_t{batmap->sectors} * kSectorSize : 0; }

bool Image::BatmapUsable() const {
  return batmap && IsAligned(batmap->offset, kSectorSize) && batmap->offset >= kFooterSize &&
         RangeFits(batmap->offset, BatmapBytes(), file_size) &&
         BatmapBytes() * 8 >= std::min(bat_entries, BlocksNeeded());
}

bool Image::ClearOfMetadata(uint64_t start) const {
  return std::ranges::none_of(regions, [&](const MetaRegion& r) {
    return start < r.end() && r.offset < SaturatingAdd(start, BlockLength());
  });
}

uint64_t Image::EndOfMetadata() const {
  uint64_t end = std::max(header_offset + kHeaderSize, SaturatingAdd(bat_offset, BatBytes()));
  if (batmap) end = std::max(end, batmap_offset + kBatmapHeaderSize);
  return end;
}

uint64_t Image::DataEnd() const {
  return trailing.state == SlotState::kAbsent ? file_size : trailing.offset;
}

Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source, const ParseOptions& options) {
  auto image = std::make_unique<Image>();
  image->source = &source;
  image->file_size = source.Size();
  image->policy = options.policy;
  FindFooters(image.get(), options.search ? kFooterSearch : kFooterSearchOfProbe);
  if (!ChooseFooter(image.get())) {
    MakeUp(image.get(), options.search, options.make_up);
  } else {
    bool fixed = image->kind == Kind::kFixed && image->footer.data_offset >= kNoOffsetOfSpec;
    bool have_header = !fixed && FindHeader(image.get(), options.search);
    SettleKind(image.get(), have_header);
    if (image->sparse()) ChooseHeader(image.get());
  }
  if (image->sparse()) {
    LocateTables(image.get());
    ListRegions(image.get());
  }
  if (image->footer_from.confidence == kChecksumWrong) FitFooterToFile(image.get());
  return image;
}

}  // namespace imgfsck::vhd
