// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/infer.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>

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

// Positions that a table could name, ascending and distinct.
std::vector<uint64_t> BlockStarts(const Image& image, uint64_t table_offset) {
  uint64_t limit = image.file_size / kSectorSize;
  std::vector<uint64_t> starts;
  for (uint32_t entry : ReadEntries(image, table_offset, kEntriesLookedAt)) {
    if (entry == kUnallocated) continue;
    // The table ends where blocks begin: what follows is data, not entries.
    if (entry >= limit || entry * kSectorSize <= table_offset) break;
    starts.push_back(entry);
  }
  std::ranges::sort(starts);
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  return starts;
}

uint64_t SectorsOf(uint64_t block_size) {
  return (block_size + BitmapBytes(block_size)) / kSectorSize;
}

// The block size whose blocks, possibly aligned to 4 KiB, lie `distance` sectors apart; or 0.
uint64_t BlockSizeForDistance(uint64_t distance) {
  for (uint64_t size = kMinBlockSize; size <= kGiB; size *= 2) {
    uint64_t sectors = SectorsOf(size);
    if (distance >= sectors && distance < sectors + 8) return size;
  }
  return 0;
}

// Guest bytes through the table; false where no block is.
bool ReadGuest(const Image& image, uint64_t offset, MutableBytes buffer) {
  auto entry = BatEntryAt(*image.source, image, offset / image.block_size);
  if (!entry || *entry == kUnallocated) return false;
  uint64_t at = *entry * kSectorSize + image.bitmap_bytes + offset % image.block_size;
  return RangeFits(at, buffer.size(), image.file_size) &&
         ReadPadded(*image.source, at, buffer).has_value();
}

std::optional<uint64_t> SizeByGpt(const Image& image) {
  std::array<uint8_t, kSectorSize> sector;
  if (!ReadGuest(image, kSectorSize, sector)) return std::nullopt;
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

}  // namespace

bool LooksLikeTable(const Image& image, uint64_t offset) {
  auto entries = ReadEntries(image, offset, 128);
  if (entries.empty()) return false;
  uint64_t limit = image.file_size / kSectorSize, unallocated = 0, good = 0;
  for (uint32_t entry : entries) {
    unallocated += entry == kUnallocated;
    good += entry < limit && entry * kSectorSize > offset;
  }
  return unallocated + good == entries.size();
}

Inferred InferTableOffset(const Image& image) {
  uint64_t usual = image.header_offset + kHeaderSize;
  if (LooksLikeTable(image, usual)) {
    return {usual, 0.9, "a block table stands right behind the dynamic header"};
  }
  if (LooksLikeTable(image, kDefaultTableOffset)) {
    return {kDefaultTableOffset, 0.9, "a block table stands at its usual place"};
  }
  for (uint64_t at = usual; at < 2 * kMiB && at < image.file_size; at += kSectorSize) {
    if (LooksLikeTable(image, at)) {
      return {at, 0.6, fmt::format("what stands at {} looks like a block table", Hex(at))};
    }
  }
  return {usual, 0.2, "no block table was found; its usual place is taken"};
}

Inferred InferBlockSize(const Image& image, uint64_t table_offset) {
  auto starts = BlockStarts(image, table_offset);
  std::map<uint64_t, uint64_t> votes;
  for (size_t i = 1; i < starts.size(); ++i) {
    if (uint64_t size = BlockSizeForDistance(starts[i] - starts[i - 1])) ++votes[size];
  }
  if (!votes.empty()) {
    auto best = std::ranges::max_element(votes, {}, [](auto& vote) { return vote.second; });
    double share = static_cast<double>(best->second) / static_cast<double>(starts.size() - 1);
    return {best->first, 0.5 + 0.45 * share,
            fmt::format("{} of {} blocks lie as far apart as blocks of {}", best->second + 1,
                        starts.size(), HumanSize(best->first))};
  }
  if (starts.size() == 1) {
    uint64_t end = image.DataEnd() / kSectorSize;
    if (uint64_t size = end > starts[0] ? BlockSizeForDistance(end - starts[0]) : 0) {
      return {size, 0.8, "the only block fills the file to its end with this size"};
    }
  }
  return {kDefaultBlockSize, 0.6, "the size that nearly all programs use"};
}

Inferred InferDiskSize(const Image& image) {
  uint64_t largest = SaturatingMul(image.bat_entries, image.block_size);
  uint64_t smallest = largest - std::min(largest, 2 * image.block_size);
  if (auto size = SizeByGpt(image); size && *size > smallest && *size <= largest) {
    return {*size, 0.95, "the guest's partition table ends there"};
  }
  uint64_t limit = std::min(largest, kMaxSectors * kSectorSize);
  return {limit, 0.6, "as much as the block table has entries for"};
}

}  // namespace imgfsck::vhd
