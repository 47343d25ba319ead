// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow1/infer.h"

#include <algorithm>
#include <bit>
#include <bitset>

#include "base/interrupt.h"
#include "formats/common/stored.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow1 {
namespace {

constexpr size_t kTablesLookedAt = 256;  // spread over the disk
constexpr size_t kSectorsLookedAt = 512;

// Slots spread evenly over the table.
template <class Visit>
Status ForSomeTables(const Image& image, const Visit& visit) {
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  size_t step = std::max<size_t>(1, image.l1.size() / kTablesLookedAt);
  for (size_t slot = 0; slot < image.l1.size(); slot += step) {
    IMG_RETURN_IF_ERROR(CheckStop());
    const L1Slot& entry = image.l1[slot];
    if (image.StateOf(entry) != SlotState::kUsable || !IsAligned(entry.value, kSector)) {
      visit(entry, nullptr);
      continue;
    }
    ReadL2(image, entry.value, &entries, &bad);
    visit(entry, &entries);
  }
  return Ok();
}

bool EnoughDifferentBytes(Bytes sector) {
  // 512 random bytes hold about 221 of the 256 values; text, code and tables far fewer.
  std::bitset<256> seen;
  for (uint8_t byte : sector) seen.set(byte);
  return seen.count() > 190;
}

}  // namespace

Result<Fit> FitOf(const ByteSource& source, const Header& header) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImageAs(source, header));
  Fit fit;
  if (!image->walkable || !image->l1_clear) return fit;
  uint64_t all_offsets = uint64_t{1} << kMaxClusterBits;
  IMG_RETURN_IF_ERROR(
      ForSomeTables(*image, [&](const L1Slot& slot, const std::vector<uint64_t>* entries) {
        if (entries == nullptr || !IsAligned(slot.value, image->geometry.cluster_size)) {
          ++fit.wrong;
          return;
        }
        all_offsets |= slot.value;
        for (uint64_t raw : *entries) {
          Entry entry{raw};
          if (entry.empty()) continue;
          EntryCheck check = CheckEntry(*image, entry);
          bool good = !check.damaged() && !check.unaligned;
          ++(good ? fit.good : fit.wrong);
          if (good && !entry.compressed()) all_offsets |= entry.raw;
        }
      }));
  fit.alignment = static_cast<unsigned>(std::countr_zero(all_offsets));
  return fit;
}

Result<std::optional<Header>> InferGeometry(const ByteSource& source, const Header& header) {
  bool clusters = header.cluster_bits >= kMinClusterBits && header.cluster_bits <= kMaxClusterBits;
  bool tables = header.l2_bits >= kMinL2Bits && header.l2_bits <= kMaxL2Bits;
  std::optional<Header> best;
  Fit best_fit;
  for (unsigned cb = clusters ? header.cluster_bits : kMinClusterBits;
       cb <= (clusters ? header.cluster_bits : kMaxClusterBits); ++cb) {
    for (unsigned l2 = tables ? header.l2_bits : kMinL2Bits;
         l2 <= (tables ? header.l2_bits : kMaxL2Bits); ++l2) {
      Header candidate = header;
      candidate.cluster_bits = static_cast<uint8_t>(cb);
      candidate.l2_bits = static_cast<uint8_t>(l2);
      IMG_ASSIGN_OR_RETURN(Fit fit, FitOf(source, candidate));
      // Clusters are handed out one after another, so their size is what all are aligned to.
      if (!fit.sound() || fit.alignment < cb) continue;
      bool exact = fit.alignment == cb,
           best_exact = best && best_fit.alignment == best->cluster_bits;
      bool better = !best || std::pair(exact, fit.good) > std::pair(best_exact, best_fit.good);
      if (!better) continue;
      best = candidate;
      best_fit = fit;
    }
  }
  return best;
}

Result<std::optional<uint64_t>> InferSize(const ByteSource& source, const Header& header) {
  Geometry g = GeometryOf(header);
  // The table ends where its first target begins, at the latest at the end of the file.
  uint64_t begin = header.l1_table_offset, limit = source.Size();
  if (begin >= limit) return std::optional<uint64_t>();
  Header widest = header;
  widest.size =
      std::min(SaturatingMul((limit - begin) / 8, g.span), SaturatingMul(kMaxL1Entries, g.span));
  IMG_ASSIGN_OR_RETURN(auto image, ParseImageAs(source, widest));
  std::optional<uint64_t> size;
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  for (const L1Slot& slot : image->l1) {
    IMG_RETURN_IF_ERROR(CheckStop());
    if (image->L1EntryOffset(slot.index) + 8 > limit) break;
    if (image->StateOf(slot) != SlotState::kUsable || !IsAligned(slot.value, kSector)) break;
    ReadL2(*image, slot.value, &entries, &bad);
    if (!PlausibleL2(*image, entries)) break;
    if (slot.value > begin) limit = std::min(limit, slot.value);
    auto last =
        std::find_if(entries.rbegin(), entries.rend(), [](uint64_t raw) { return raw != 0; });
    uint64_t used = static_cast<uint64_t>(entries.rend() - last);
    size = slot.index * g.span + std::max<uint64_t>(used, 1) * g.cluster_size;
  }
  return size;
}

Result<std::optional<uint64_t>> InferL1Offset(const ByteSource& source, const Header& header) {
  // Where writers put it: behind the name that follows the header, behind the header, at 4 KiB.
  std::vector<uint64_t> places;
  uint64_t name_end = header.backing_file_offset + header.backing_file_size;
  if (header.has_backing_name() && header.backing_file_offset == kHeaderLength) {
    places.push_back(AlignUp(name_end, 8));
  }
  places.insert(places.end(), {kHeaderLength, kXenL1Alignment});
  Header candidate = header;
  for (uint64_t place : places) {
    candidate.l1_table_offset = place;
    IMG_ASSIGN_OR_RETURN(Fit fit, FitOf(source, candidate));
    if (fit.sound()) return std::optional(place);
  }
  // A lone run of entries elsewhere. Its first entry need not be the disk's first, so only places
  // at which a program would begin a table are tried.
  std::optional<uint64_t> found;
  std::vector<HostRange> bad;
  auto visit = [&](uint64_t offset, Bytes piece) -> Result<bool> {
    for (uint64_t at = AlignUp(offset, kXenL1Alignment); at + 8 <= offset + piece.size();
         at += kXenL1Alignment) {
      uint64_t first = BeAt<uint64_t>(piece, at - offset);
      if (first == 0 || first >= source.Size() || !IsAligned(first, kSector)) continue;
      candidate.l1_table_offset = at;
      IMG_ASSIGN_OR_RETURN(Fit fit, FitOf(source, candidate));
      if (!fit.sound()) continue;
      if (found) return found.reset(), false;  // two of them: no decision
      found = at;
    }
    return true;
  };
  IMG_RETURN_IF_ERROR(ForEachStoredPiece(source, 0, source.Size(), &bad, visit));
  return found;
}

Result<uint32_t> InferCrypt(const ByteSource& source, const Header& header) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImageAs(source, header));
  size_t looked_at = 0, random = 0;
  std::vector<HostRange> bad;
  if (!image->walkable || !image->l1_clear) return static_cast<uint32_t>(kCryptNone);
  IMG_RETURN_IF_ERROR(
      ForSomeTables(*image, [&](const L1Slot&, const std::vector<uint64_t>* entries) {
        if (entries == nullptr) return;
        for (uint64_t raw : *entries) {
          Entry entry{raw};
          if (entry.empty() || entry.compressed() || CheckEntry(*image, entry).damaged()) continue;
          if (looked_at >= kSectorsLookedAt) return;
          uint8_t sector[kSector];
          ReadTolerant(source, entry.raw, sector, &bad);
          ++looked_at;
          if (EnoughDifferentBytes(sector)) ++random;
        }
      }));
  bool encrypted = looked_at > 0 && random * 10 >= looked_at * 9;
  return static_cast<uint32_t>(encrypted ? kCryptAes : kCryptNone);
}

}  // namespace imgfsck::qcow1
