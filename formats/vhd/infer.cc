// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/infer.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/checked.h"
#include "base/text.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/bat.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kEntriesLookedAt = 16384;

std::vector<uint32_t> ReadEntries(const Image& image, uint64_t offset, uint64_t count) {
  count = offset < image.file_size ? std::min(count, (image.file_size - offset) / 4) : 0;
  ByteVector bytes(count * 4);
  std::vector<HostRange> bad;
  ReadTolerant(*image.source, offset, bytes, &bad);
  std::vector<uint32_t> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i] = LoadBe<uint32_t>(&bytes[i * 4]);
  return entries;
}

// Positions that a table could name, ascending and distinct. Entries that can be no position are
// left out; where the first block begins the table has ended.
std::vector<uint64_t> BlockStarts(const Image& image, uint64_t table_offset) {
  uint64_t limit = image.file_size / kSectorSize, first = limit;
  std::vector<uint64_t> starts;
  uint64_t at = table_offset;
  for (uint32_t entry : ReadEntries(image, table_offset, kEntriesLookedAt)) {
    if (at >= first * kSectorSize) break;
    at += sizeof entry;
    if (entry >= limit || entry * kSectorSize <= table_offset) continue;
    starts.push_back(entry);
    first = std::min<uint64_t>(first, entry);
  }
  std::ranges::sort(starts);
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  return starts;
}

uint64_t SectorsOf(uint64_t block_size) {
  return (block_size + BitmapBytes(block_size)) / kSectorSize;
}

// How well blocks of one size explain where they begin.
struct Fit {
  uint64_t pairs = 0;      // neighbours in the file
  uint64_t exact = 0;      // of those, one right behind the other, or aligned to 4 KiB
  uint64_t multiple = 0;   // of those, with room for whole blocks between them
  uint64_t conflicts = 0;  // of those, over each other
  bool at_end = false;     // the last one ends where the footer stands
  bool entries = false;    // the header has as many entries as the disk needs
  double Score() const {
    auto of = [](uint64_t n, double weight) { return static_cast<double>(n) * weight; };
    return of(exact, 1) + of(multiple, 0.3) + of(at_end, 1) + of(entries, 3) - of(conflicts, 0.5);
  }
};

Fit FitOf(const Image& image, const std::vector<uint64_t>& starts, uint64_t block_size) {
  Fit fit;
  const uint64_t sectors = SectorsOf(block_size);
  constexpr uint64_t kAligned = 8;
  for (size_t i = 1; i < starts.size(); ++i) {
    uint64_t distance = starts[i] - starts[i - 1];
    ++fit.pairs;
    fit.conflicts += distance < sectors;
    bool exact = distance >= sectors && distance < sectors + kAligned;
    fit.exact += exact;
    fit.multiple += !exact && distance > sectors &&
                    (distance % sectors == 0 || distance % AlignUp(sectors, kAligned) == 0);
  }
  uint64_t end = image.DataEnd() / kSectorSize;
  fit.at_end =
      !starts.empty() && end >= starts.back() + sectors && end < starts.back() + sectors + kAligned;
  uint64_t needed = DivRoundUp(image.footer.current_size, block_size);
  fit.entries =
      needed > 0 && image.header.max_entries >= needed && image.header.max_entries <= needed + 1;
  return fit;
}

// Guest bytes through the table; false where no block is.
bool ReadGuest(const Image& image, uint64_t offset, MutableBytes buffer) {
  auto entry = BatEntryAt(*image.source, image, offset / image.block_size);
  if (!entry || *entry == kUnallocated) return false;
  uint64_t at = *entry * kSectorSize + image.bitmap_bytes + offset % image.block_size;
  return RangeFits(at, buffer.size(), image.file_size) &&
         ReadPadded(*image.source, at, buffer).has_value();
}

// The first two sectors of the disk are enough.
std::optional<uint64_t> SizeByGpt(MutableBytes sector) {
  Bytes gpt = sector;
  uint32_t header_size = LeAt<uint32_t>(gpt, 12);
  if (AsText(gpt.first(8)) != "EFI PART" || header_size < 92 || header_size > kSectorSize) {
    return std::nullopt;
  }
  uint32_t stored = LeAt<uint32_t>(gpt, 16);
  uint64_t last = LeAt<uint64_t>(gpt, 32);
  PutLe<uint32_t>(sector, 16, 0);
  auto sum = static_cast<uint32_t>(crc32(0, sector.data(), header_size));
  if (sum != stored || last >= kMaxSectors) return std::nullopt;
  return (last + 1) * kSectorSize;
}

// Where the last partition ends; the disk is at least that large. Nothing for a GPT's first sector.
std::optional<uint64_t> EndByMbr(Bytes sector) {
  constexpr uint64_t kTable = 446, kEntry = 16, kType = 4, kStart = 8, kLength = 12;
  constexpr uint8_t kProtective = 0xEE;
  if (LeAt<uint16_t>(sector, 510) != 0xAA55) return std::nullopt;
  uint64_t end = 0;
  for (uint64_t i = 0; i < 4; ++i) {
    Bytes entry = sector.subspan(kTable + i * kEntry, kEntry);
    if (entry[kType] == kProtective || (entry[0] & 0x7F) != 0) return std::nullopt;
    uint64_t start = LeAt<uint32_t>(entry, kStart), length = LeAt<uint32_t>(entry, kLength);
    if (entry[kType] == 0 || length == 0) continue;
    if (start < end || start == 0) return std::nullopt;  // no table as tools write it
    end = start + length;
  }
  if (end == 0 || end > kMaxSectors) return std::nullopt;
  return end * kSectorSize;
}

}  // namespace

namespace {

struct TableLook {
  double share = 0;     // of entries that are empty or name a place in the file
  uint64_t blocks = 0;  // of those, entries that name one
};

TableLook LookAtTable(const Image& image, uint64_t offset) {
  auto entries = ReadEntries(image, offset, 128);
  while (!entries.empty() && entries.back() == 0) entries.pop_back();  // some pad with zeros
  if (entries.empty()) return {};
  uint64_t limit = image.file_size / kSectorSize, empty = 0, blocks = 0;
  for (uint32_t entry : entries) {
    empty += entry == kUnallocated;
    blocks += entry < limit && entry * kSectorSize > offset;
  }
  return {static_cast<double>(empty + blocks) / static_cast<double>(entries.size()), blocks};
}

}  // namespace

bool LooksLikeTable(const Image& image, uint64_t offset) {
  constexpr double kEnough = 0.9;  // some may be damaged
  return LookAtTable(image, offset).share >= kEnough;
}

Inferred InferTableOffset(const Image& image) {
  const uint64_t usual = image.header_offset + kHeaderSize;
  if (LooksLikeTable(image, usual)) {
    return {usual, 0.9, "a block table stands right behind the dynamic header"};
  }
  if (LooksLikeTable(image, kDefaultTableOffset)) {
    return {kDefaultTableOffset, 0.9, "a block table stands at its usual place"};
  }
  // All programs put it there, so much of it may be damaged.
  constexpr double kRemains = 0.25;
  for (uint64_t at : {usual, kDefaultTableOffset}) {
    if (LookAtTable(image, at).share >= kRemains) {
      return {at, 0.7, "the remains of a block table stand at its usual place"};
    }
  }
  // Elsewhere it takes blocks to tell one from a sector bitmap.
  for (uint64_t at = usual; at < 2 * kMiB && at < image.file_size; at += kSectorSize) {
    if (LookAtTable(image, at).blocks >= 2 && LooksLikeTable(image, at)) {
      return {at, 0.6, fmt::format("what stands at {} looks like a block table", Hex(at))};
    }
  }
  return {usual, 0.2, "no block table was found; its usual place is taken"};
}

bool BlocksLieApart(const Image& image, uint64_t table_offset, uint64_t block_size) {
  if (block_size < kSectorSize) return false;
  Fit fit = FitOf(image, BlockStarts(image, table_offset), block_size);
  return fit.conflicts <= std::max<uint64_t>(1, fit.pairs / 4);
}

Inferred InferBlockSize(const Image& image, uint64_t table_offset) {
  auto starts = BlockStarts(image, table_offset);
  uint64_t best_size = 0;
  double best_score = 0;
  Fit best;
  for (uint64_t size = kMinBlockSize; size <= kGiB; size *= 2) {
    Fit fit = FitOf(image, starts, size);
    double score = fit.Score();
    // A little is enough to say that a usual size is the more likely of two.
    if (score > 0 && size == kDefaultBlockSize) score += 0.5;
    if (score <= best_score) continue;
    best_score = score;
    best_size = size;
    best = fit;
  }
  if (best_size == 0) {
    bool apart = BlocksLieApart(image, table_offset, kDefaultBlockSize);
    return {kDefaultBlockSize, apart ? 0.6 : 0.3, "the size that nearly all programs use"};
  }
  std::string evidence = fmt::format("with blocks of {}", HumanSize(best_size));
  if (best.pairs > 0) {
    evidence += fmt::format(", {} of {} gaps between blocks are none or whole blocks",
                            best.exact + best.multiple, best.pairs);
  }
  if (best.at_end) evidence += ", the last block ends at the footer";
  if (best.entries) evidence += ", the block table has as many entries as the disk needs";
  return {best_size, 0.5 + 0.45 * best_score / (best_score + 2), evidence};
}

Inferred InferDiskSize(const Image& image) {
  uint64_t largest = SaturatingMul(image.bat_entries, image.block_size);
  uint64_t smallest = largest - std::min(largest, 2 * image.block_size);
  std::array<uint8_t, kSectorSize> sector;
  if (ReadGuest(image, kSectorSize, sector)) {
    if (auto size = SizeByGpt(sector); size && *size > smallest && *size <= largest) {
      return {*size, 0.95, "the guest's partition table ends there"};
    }
  }
  uint64_t limit = std::min(largest, kMaxSectors * kSectorSize);
  return {limit, 0.6, "as much as the block table has entries for"};
}

Inferred InferFixedSize(const Image& image) {
  const uint64_t payload = AlignUp(image.DataEnd(), kSectorSize);
  const bool killed = image.trailing.state != SlotState::kAbsent;
  std::array<uint8_t, 2 * kSectorSize> start{};
  std::vector<HostRange> bad;
  if (image.file_size >= start.size()) ReadTolerant(*image.source, 0, start, &bad);
  auto gpt = SizeByGpt(MutableBytes(start).subspan(kSectorSize));
  if (gpt && (*gpt >= payload || (!killed && *gpt + kFooterSize == payload))) {
    return {*gpt, 0.95, "the guest's partition table ends there"};
  }
  if (killed) return {payload, 0.7, "the data in front of the blanked-out footer"};
  if (image.file_size % kMiB == kFooterSize) {
    return {payload - kFooterSize, 0.7, "the file is one sector longer than a round size"};
  }
  auto mbr = EndByMbr(Bytes(start).first(kSectorSize));
  if (mbr && *mbr > payload) return {*mbr, 0.6, "the guest's last partition ends there"};
  return {payload, 0.4, "the whole length of the file"};
}

}  // namespace imgfsck::vhd
