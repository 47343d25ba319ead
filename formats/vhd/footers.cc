// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/footers.h"

#include <openssl/sha.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/salvage.h"

namespace imgfsck::vhd {
namespace {

// A footer somewhere before the end may be any nested disk's: it must fit this one.
bool BelongsHere(const Image& image, const FooterSlot& slot) {
  if (!slot.sound()) return false;
  if (slot.footer.type() == DiskType::kFixed) return slot.footer.current_size == slot.offset;
  return image.leading.believable() && slot.footer.unique_id == image.leading.footer.unique_id;
}

// Where the last stored bytes end, when the host can tell within a bounded number of questions.
uint64_t LastDataEnd(const ByteSource& source) {
  uint64_t end = 0, at = 0, size = source.Size();
  for (int questions = 0; at < size; ++questions) {
    auto extent = source.ExtentAt(at);
    if (!extent || extent->length == 0 || questions == 65536) return size;
    at = SaturatingAdd(at, extent->length);
    if (!extent->hole) end = at;
  }
  return std::min(end, size);
}

bool SearchBackwards(Image* image, uint64_t from, uint64_t search) {
  constexpr uint64_t kChunk = 64 * kKiB;
  ByteVector chunk(kChunk);
  uint64_t end = AlignDown(from, kSectorSize);
  uint64_t stop = end - std::min(end, search);
  while (end > stop) {
    uint64_t begin = std::max(stop, AlignDown(end - 1, kChunk));
    MutableBytes bytes = MutableBytes(chunk).first(end - begin);
    ReadTolerant(*image->source, begin, bytes, &image->unreadable);
    for (uint64_t at = bytes.size(); at >= kSectorSize; at -= kSectorSize) {
      Bytes sector = bytes.subspan(at - kSectorSize, kSectorSize);
      if (AsText(sector.first(8)) != kFooterCookie) continue;
      FooterSlot slot{SlotState::kBadChecksum, begin + at - kSectorSize, kFooterSize,
                      ParseFooter(sector)};
      if (slot.footer.ChecksumValid()) slot.state = SlotState::kSound;
      if (slot.offset == 0 || !BelongsHere(*image, slot)) continue;
      image->trailing = slot;
      return true;
    }
    end = begin;
  }
  return false;
}

bool IsFixedFooter(const FooterSlot& slot) {
  return slot.believable() && slot.footer.type() == DiskType::kFixed &&
         slot.footer.data_offset >= kNoOffsetOfSpec && slot.footer.current_size == slot.offset;
}

void GoBy(Image* image, const FooterSlot& slot, Origin origin, double confidence,
          std::string evidence) {
  image->footer = slot.footer;
  image->footer_from = {origin, confidence, std::move(evidence)};
}

// One of two damaged footers, or the only one there is.
void GoByDamaged(Image* image, const FooterSlot& slot, Origin origin) {
  if (auto corrected = CorrectFooter(slot.footer)) {
    image->footer = *corrected;
    image->footer_from = {Origin::kCorrected, 0.9, "with this the stored checksum is right"};
    return;
  }
  GoBy(image, slot, origin, kChecksumWrong, "the only footer that is left, its checksum is wrong");
}

// Two damaged footers often were hurt at different places.
void GoByBothDamaged(Image* image) {
  const FooterSlot &trailing = image->trailing, &leading = image->leading;
  if (auto merged = MergeFooters(trailing.footer, leading.footer)) {
    image->footer = *merged;
    image->footer_from = {Origin::kCorrected, 0.95, "both footers together give a right checksum"};
    return;
  }
  GoByDamaged(image, trailing, Origin::kStored);
  bool helped = image->footer_from.origin == Origin::kCorrected;
  if (!helped && CorrectFooter(leading.footer)) GoByDamaged(image, leading, Origin::kCopy);
}

}  // namespace

FooterSlot ReadFooterSlot(const ByteSource& source, uint64_t offset, uint64_t length,
                          std::vector<HostRange>* bad) {
  FooterSlot slot{SlotState::kAbsent, offset, length, {}};
  if (!RangeFits(offset, length, source.Size())) return slot;
  ByteVector bytes(length);
  ReadTolerant(source, offset, bytes, bad);
  slot.footer = ParseFooter(bytes);
  if (std::ranges::all_of(bytes, [](uint8_t b) { return b == kKilledByte; })) {
    slot.state = SlotState::kKilled;
  } else if (AsText(Bytes(bytes).first(8)) == kPoisonCookie) {
    slot.state = SlotState::kPoisoned;
  } else if (slot.footer.HasCookie()) {
    slot.state = slot.footer.ChecksumValid() ? SlotState::kSound : SlotState::kBadChecksum;
  } else if (Footer restored = WithCookie(slot.footer);
             restored.ChecksumValid() && LooksReasonable(restored)) {
    slot.state = SlotState::kNoCookie;
    slot.footer = restored;
  }
  return slot;
}

void FindFooters(Image* image, uint64_t search) {
  const ByteSource& source = *image->source;
  uint64_t size = image->file_size;
  std::vector<std::pair<uint64_t, uint64_t>> places;  // offset, length
  if (size >= kFooterSize && size % kSectorSize != kLegacyFooterSize) {
    places.emplace_back(size - kFooterSize, kFooterSize);
  }
  if (size % kSectorSize == kLegacyFooterSize) {
    places.emplace_back(size - kLegacyFooterSize, kLegacyFooterSize);
  }
  uint64_t whole = AlignDown(size, kSectorSize);
  if (whole != size && whole >= kFooterSize) places.emplace_back(whole - kFooterSize, kFooterSize);
  for (auto [offset, length] : places) {
    image->trailing = ReadFooterSlot(source, offset, length, &image->unreadable);
    if (image->trailing.state != SlotState::kAbsent) break;
  }
  // A file that is nothing but a footer has no copy of it.
  if (image->trailing.state == SlotState::kAbsent || image->trailing.offset > 0) {
    image->leading = ReadFooterSlot(source, 0, kFooterSize, &image->unreadable);
  }
  if (image->trailing.state == SlotState::kAbsent && search > 0) {
    image->trailing = {};
    if (!SearchBackwards(image, size, search) && search >= kFooterSearch) {
      uint64_t end = LastDataEnd(source);
      if (end < size) SearchBackwards(image, AlignUp(end, kSectorSize), search);
    }
  }
  image->trailing_at_end = image->trailing.state != SlotState::kAbsent &&
                           image->trailing.offset + image->trailing.length == size;
}

bool ChooseFooter(Image* image) {
  const FooterSlot &trailing = image->trailing, &leading = image->leading;
  if (trailing.sound()) {
    GoBy(image, trailing, Origin::kStored, 1, "");
  } else if (IsFixedFooter(trailing) &&
             !(leading.sound() && leading.footer.unique_id == trailing.footer.unique_id)) {
    GoByDamaged(image, trailing, Origin::kStored);
  } else if (leading.sound()) {
    GoBy(image, leading, Origin::kCopy, 0.95, "the copy at the start of the file is sound");
  } else if (trailing.believable() && leading.believable()) {
    GoByBothDamaged(image);
  } else if (trailing.believable()) {
    GoByDamaged(image, trailing, Origin::kStored);
  } else if (leading.believable()) {
    GoByDamaged(image, leading, Origin::kCopy);
  } else if (trailing.state == SlotState::kPoisoned) {
    GoBy(image, trailing, Origin::kStored, 0.6, "the footer of an interrupted resize");
  } else {
    return false;
  }
  switch (image->footer.type()) {
    case DiskType::kDynamic:
      image->kind = Kind::kDynamic;
      break;
    case DiskType::kDifferencing:
      image->kind = Kind::kDifferencing;
      break;
    default:
      image->kind = Kind::kFixed;
      break;
  }
  return true;
}

Footer MakeUpFooter(DiskType type, uint64_t size, uint64_t data_offset, Bytes seed) {
  Footer f;
  f.features = kFeatureReserved;
  f.version = kVersion1;
  f.data_offset = data_offset;
  f.creator_app = kCreatorQem2;  // readers then go by the size
  f.creator_version = 0x00010000;
  f.creator_os = kHostWindows;
  f.original_size = f.current_size = size;
  f.geometry = GeometryFor(size / kSectorSize);
  f.disk_type = static_cast<uint32_t>(type);
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(seed.data(), seed.size(), digest);
  std::copy_n(digest, f.unique_id.size(), f.unique_id.begin());
  f.unique_id[6] = static_cast<uint8_t>((f.unique_id[6] & 0x0F) | 0x80);  // RFC 9562 version 8
  f.unique_id[8] = static_cast<uint8_t>((f.unique_id[8] & 0x3F) | 0x80);
  Seal(&f);
  return f;
}

}  // namespace imgfsck::vhd
