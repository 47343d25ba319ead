// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/evidence.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/refcounts.h"

namespace imgfsck::qcow2 {
namespace {

std::string NameOf(const Claim& claim) {
  return MetaRegion{claim.meta, {}, claim.meta_index, claim.meta_owner}.Structure();
}

// Calls test(word) for every word of the part that the claim uses; false when one fails, or none is
// other than zero.
template <class Test>
bool AllWords(Bytes bytes, Test test) {
  bool any = false;
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    const uint64_t word = LoadBe<uint64_t>(&bytes[at]);
    if (word == 0) continue;
    any = true;
    if (!test(word)) return false;
  }
  return any;
}

bool IsRegion(MetaKind kind) {  // named by the header: found without going through other tables
  return kind == MetaKind::kHeader || kind == MetaKind::kL1 || kind == MetaKind::kRefcountTable ||
         kind == MetaKind::kSnapshotTable;
}

Verdict For(Verdict::Favours favours, std::string evidence, double confidence) {
  return {favours, std::move(evidence), confidence};
}

}  // namespace

Verdict Evidence::Weigh(const Claim& own, const Claim& other) const {
  const bool own_meta = own.kind == Claim::Kind::kMeta,
             other_meta = other.kind == Claim::Kind::kMeta;
  if (own_meta && other_meta) {
    return own.meta == MetaKind::kL2 && other.meta == MetaKind::kL2 ? WeighTables(own, other)
                                                                    : WeighMetadata(own, other);
  }
  if (other_meta) return WeighAgainstMetadata(other);
  if (own_meta) {
    Verdict verdict = WeighAgainstMetadata(own);
    if (verdict.favours == Verdict::Favours::kNeither) return verdict;
    verdict.favours = verdict.favours == Verdict::Favours::kOwn ? Verdict::Favours::kOther
                                                                : Verdict::Favours::kOwn;
    return verdict;
  }
  return WeighData(own, other);
}

// A guest's cluster against metadata: the metadata is known by its content.
Verdict Evidence::WeighAgainstMetadata(const Claim& meta) const {
  if (!MakesSense(meta)) {
    return For(Verdict::Favours::kOwn,
               fmt::format("what stands there is no {}", KindName(meta.meta)), 0.9);
  }
  if (meta.meta == MetaKind::kBitmapData) return {};  // any bytes can be a bitmap
  return For(Verdict::Favours::kOther, fmt::format("what stands there is {}", NameOf(meta)), 0.9);
}

Verdict Evidence::WeighMetadata(const Claim& own, const Claim& other) const {
  const bool own_fits = MakesSense(own), other_fits = MakesSense(other);
  if (own_fits != other_fits) {
    const Claim& winner = own_fits ? own : other;
    return For(own_fits ? Verdict::Favours::kOwn : Verdict::Favours::kOther,
               fmt::format("what stands there is {}", NameOf(winner)), 0.9);
  }
  if (!own_fits) return {};
  if (IsRegion(own.meta) != IsRegion(other.meta)) {
    const Claim& winner = IsRegion(own.meta) ? own : other;
    return For(IsRegion(own.meta) ? Verdict::Favours::kOwn : Verdict::Favours::kOther,
               fmt::format("the header itself names {}", NameOf(winner)), 0.7);
  }
  return {};
}

// One L2 table in two places of an L1 table.
Verdict Evidence::WeighTables(const Claim& own, const Claim& other) const {
  const bool own_behind = BehindTheDisk(own), other_behind = BehindTheDisk(other);
  if (own_behind == other_behind) return {};
  return For(own_behind ? Verdict::Favours::kOther : Verdict::Favours::kOwn,
             "in the other place its entries would lie behind the end of the disk", 0.95);
}

Verdict Evidence::WeighData(const Claim& own, const Claim& other) const {
  const bool own_follows = FollowsNeighbour(own), other_follows = FollowsNeighbour(other);
  if (own_follows == other_follows) return {};
  return For(own_follows ? Verdict::Favours::kOwn : Verdict::Favours::kOther,
             "the clusters before or behind it belong to the entry's neighbours", 0.7);
}

// A damaged table may name one cluster as often as it has entries: claims come cluster by cluster,
// and each is read once.
Bytes Evidence::Read(uint64_t cluster) const {
  if (bytes_.empty() || cluster != read_) {
    bytes_.assign(image_.geometry.cluster_size, 0);
    read_ = cluster;
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, cluster << image_.geometry.cluster_bits, bytes_, &bad);
  }
  return bytes_;
}

// What decides beside the cluster itself: (index, owner).
std::pair<uint64_t, uint64_t> Evidence::Matters(const Claim& claim) const {
  if (claim.meta == MetaKind::kRefcountBlock) {
    const uint64_t covering = DivRoundUp(claims_.clusters(), image_.geometry.block_entries);
    return {std::min(claim.meta_index, covering), 0};
  }
  if (claim.meta == MetaKind::kBitmapData) return {claim.meta_index, claim.meta_owner};
  return {0, 0};
}

bool Evidence::MakesSense(const Claim& claim) const {
  constexpr size_t kMostKnown = 1 << 16;
  if (known_.size() >= kMostKnown) known_.clear();
  const auto [index, owner] = Matters(claim);
  auto [known, fresh] = known_.try_emplace({claim.cluster, claim.meta, index, owner}, false);
  if (fresh) known->second = LookAt(claim);
  return known->second;
}

bool Evidence::LookAt(const Claim& claim) const {
  const Geometry& g = image_.geometry;
  const Bytes bytes = Read(claim.cluster);
  auto leads_into_file = [&](uint64_t offset) {
    return IsAligned(offset, g.cluster_size) && offset < image_.file_size;
  };
  switch (claim.meta) {
    case MetaKind::kHeader:
      return true;
    case MetaKind::kL1:
    case MetaKind::kSnapshotL1: {
      bool copied = false;
      const bool valid = AllWords(bytes, [&](uint64_t word) {
        copied |= (word & kCopied) != 0;
        return (word & kL1Reserved) == 0 && leads_into_file(word & kOffsetMask);
      });
      // Without snapshots no L1 entry lacks the flag.
      return valid && (copied || !image_.snapshots.entries.empty());
    }
    case MetaKind::kRefcountTable:
      return AllWords(bytes, [&](uint64_t word) {
        return (word & (kRefcountTableReserved | kCopied)) == 0 && leads_into_file(word);
      });
    case MetaKind::kRefcountBlock:
      return IsRefcountBlock(claim, bytes);
    case MetaKind::kSnapshotTable:
      return image_.snapshots.stop == SnapshotTable::Stop::kNone &&
             std::ranges::all_of(image_.snapshots.entries, [&](const Snapshot& s) {
               return !s.id.empty() && leads_into_file(s.l1_table_offset);
             });
    case MetaKind::kLuks:
      return image_.luks && image_.luks->magic_ok;
    case MetaKind::kBitmapDirectory:
      return !image_.bitmaps.broken && !image_.bitmaps.entries.empty() &&
             image_.bitmaps.entries.front().type == 1;
    case MetaKind::kBitmapTable:
      return AllWords(bytes, [&](uint64_t word) {
        return (word & kBitmapEntryReserved) == 0 &&
               ((word & kOffsetMask) == 0 || leads_into_file(word & kOffsetMask));
      });
    case MetaKind::kBitmapData:
      return IsBitmapData(claim, bytes);
    case MetaKind::kL2: {
      bool any = false;
      for (uint64_t i = 0; i < g.l2_entries; ++i) {
        const Entry entry = LoadEntry(g, bytes, i);
        any |= !entry.empty();
        if (EntryInvalid(image_, entry)) return false;
      }
      return any;
    }
  }
  return true;
}

// Most counts in it are what the references say.
bool Evidence::IsRefcountBlock(const Claim& claim, Bytes cluster) const {
  const Geometry& g = image_.geometry;
  const uint64_t first = claim.meta_index * g.block_entries;
  if (first >= claims_.clusters()) return AllZero(cluster);
  const uint64_t count = std::min(g.block_entries, claims_.clusters() - first);
  uint64_t right = 0;
  for (uint64_t i = 0; i < count; ++i) {
    right += LoadRefcount(cluster, g.refcount_order, i) == claims_.Count(first + i);
  }
  return right * 4 >= count * 3;
}

// Bits for what lies behind the disk are clear.
bool Evidence::IsBitmapData(const Claim& claim, Bytes cluster) const {
  if (claim.meta_owner >= image_.bitmaps.entries.size()) return false;
  const Bitmap& b = image_.bitmaps.entries[claim.meta_owner];
  if (b.granularity_bits > 40) return false;
  const uint64_t bits = DivRoundUp(image_.header.size, uint64_t{1} << b.granularity_bits);
  const uint64_t first = claim.meta_index * cluster.size() * 8;
  if (first >= bits) return AllZero(cluster);
  const uint64_t used = DivRoundUp(bits - first, 8);
  return used >= cluster.size() || AllZero(cluster.subspan(used));
}

// The entry before or after leads to the cluster before or after.
bool Evidence::FollowsNeighbour(const Claim& claim) const {
  const Geometry& g = image_.geometry;
  for (const int step : {-1, 1}) {
    const uint64_t index = claim.index + static_cast<uint64_t>(step);
    const uint64_t cluster = claim.cluster + static_cast<uint64_t>(step);
    if (index >= g.l2_entries || cluster >= claims_.clusters()) continue;
    ByteVector bytes(g.l2_entry_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, claim.table.offset + index * g.l2_entry_size, bytes, &bad);
    const Entry entry = LoadEntry(g, bytes, 0);
    if (!entry.compressed() && entry.host() == cluster << g.cluster_bits) return true;
  }
  return false;
}

// An L2 table some entries of which would map what the disk does not have.
bool Evidence::BehindTheDisk(const Claim& claim) const {
  const Geometry& g = image_.geometry;
  const uint64_t size = image_.LayerSize(claim.table.layer);
  const uint64_t begin = claim.table.column * g.l2_span;
  if (begin + g.l2_span <= size) return false;
  const uint64_t inside = begin >= size ? 0 : g.ClustersOf(size - begin);
  auto [known, fresh] = tails_.try_emplace({claim.cluster, inside}, false);
  if (!fresh) return known->second;
  const Bytes bytes = Read(claim.cluster);
  for (uint64_t i = inside; i < g.l2_entries && !known->second; ++i) {
    known->second = !LoadEntry(g, bytes, i).empty();
  }
  return known->second;
}

}  // namespace imgfsck::qcow2
