// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/superseded.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <map>

#include "analyzers/qcow2/entry_rules.h"
#include "base/interrupt.h"
#include "formats/common/stored.h"

namespace imgfsck::qcow2 {
namespace {

using Digest = std::array<uint8_t, SHA256_DIGEST_LENGTH>;

Digest DigestOf(Bytes bytes) {
  Digest digest;
  SHA256(bytes.data(), bytes.size(), digest.data());
  return digest;
}

}  // namespace

OrphanJudge::OrphanJudge(const ByteSource& bytes, const CheckState& state)
    : bytes_(bytes), state_(state), image_(*state.image) {}

Result<OrphanJudge::Content> OrphanJudge::Judge(uint64_t cluster) {
  uint64_t begin = cluster << image_.geometry.cluster_bits;
  if (begin >= bytes_.Size()) return Content::kEmpty;
  auto extent = bytes_.ExtentAt(begin);
  if (extent && extent->hole && extent->length >= image_.geometry.cluster_size) {
    return Content::kEmpty;
  }
  ByteVector content(image_.geometry.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(bytes_, begin, content, &bad);
  if (!bad.empty()) return Content::kUnreadable;
  if (AllZero(content)) return Content::kEmpty;
  if (auto it = copies_.find(cluster); it != copies_.end() && it->second) return Content::kCopy;
  if (OldRefcountBlock(content, cluster) || OldRefcountTable(content, cluster) ||
      OldL2Table(content) || OldL1Table(content)) {
    return Content::kSuperseded;
  }
  return Content::kValuable;
}

// Counts that agree with the references found, but for a few that changed since.
bool OrphanJudge::OldRefcountBlock(Bytes content, uint64_t cluster) const {
  const Geometry& g = image_.geometry;
  uint64_t blocks = DivRoundUp(state_.claims().clusters(), g.block_entries);
  auto matches = [&](uint64_t index) {
    uint64_t used = 0, wrong = 0, live = 0;
    for (uint64_t i = 0; i < g.block_entries; ++i) {
      uint64_t stored = LoadRefcount(content, g.refcount_order, i);
      uint64_t computed = state_.claims().Count(index * g.block_entries + i);
      used += stored != 0;
      live += computed != 0;
      wrong += stored != computed && stored != 0 && computed != 0;
      wrong += stored > 1 && computed == 0;
    }
    return used >= 4 && used * 2 >= live && wrong * 50 <= used;
  };
  // A count is small; data rarely passes this.
  uint64_t largest = 0;
  for (uint64_t i = 0; i < g.block_entries; ++i) {
    largest = std::max(largest, LoadRefcount(content, g.refcount_order, i));
  }
  if (g.refcount_order < 3 || largest > 1 + image_.LayerCount() + g.cluster_size / 64) return false;
  uint64_t own = cluster / g.block_entries;
  if (blocks <= 64) {
    for (uint64_t i = 0; i < blocks; ++i) {
      if (matches(i)) return true;
    }
    return false;
  }
  return matches(own) || (own > 0 && matches(own - 1)) || matches(own + 1);
}

// Offsets of clusters that nothing refers to and that hold old refcount blocks, or of live blocks.
bool OrphanJudge::OldRefcountTable(Bytes content, uint64_t) const {
  const Geometry& g = image_.geometry;
  uint64_t used = 0;
  ByteVector block(g.cluster_size);
  for (size_t i = 0; i + 8 <= content.size(); i += 8) {
    uint64_t offset = LoadBe<uint64_t>(&content[i]);
    if (offset == 0) continue;
    if (!IsAligned(offset, g.cluster_size) || offset >= image_.file_size) return false;
    if (++used > 64) continue;
    if (std::ranges::find(image_.refcount_table, offset) != image_.refcount_table.end()) continue;
    std::vector<HostRange> bad;
    ReadTolerant(bytes_, offset, block, &bad);
    if (state_.claims().IsUsed(offset >> g.cluster_bits) ||
        !OldRefcountBlock(block, offset >> g.cluster_bits)) {
      return false;
    }
  }
  return used > 0;
}

void OrphanJudge::LearnLiveEntries() {
  if (learnt_) return;
  learnt_ = true;
  std::vector<TableRef> tables;
  std::vector<HostRange> bad;
  ByteVector content(image_.geometry.cluster_size);
  const Columns& columns = *state_.columns;
  for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
    columns.Read(begin, begin + columns.ChunkSize(), &tables, nullptr, &bad);
    for (const TableRef& table : tables) {
      ReadTolerant(bytes_, table.offset, content, &bad);
      // Indexed by each of a few sampled entries, so that an older, sparser version finds it too.
      for (uint64_t i = 0; i < image_.geometry.l2_entries; ++i) {
        Entry entry = LoadEntry(image_.geometry, content, i);
        if (entry.empty()) continue;
        auto& list = tables_by_first_[(entry.descriptor & ~kCopied) ^ i];
        if (list.size() < 8) list.push_back(table.offset);
        break;
      }
    }
  }
}

// Every entry stands in one live table at the same place.
bool OrphanJudge::OldL2Table(Bytes content) {
  const Geometry& g = image_.geometry;
  LearnLiveEntries();
  uint64_t first = 0;
  while (first < g.l2_entries && LoadEntry(g, content, first).empty()) ++first;
  if (first == g.l2_entries) return false;
  Entry entry = LoadEntry(g, content, first);
  auto it = tables_by_first_.find((entry.descriptor & ~kCopied) ^ first);
  if (it == tables_by_first_.end()) return false;
  ByteVector live(g.cluster_size);
  for (uint64_t offset : it->second) {
    std::vector<HostRange> bad;
    ReadTolerant(bytes_, offset, live, &bad);
    bool repeated = true;
    for (uint64_t i = first; i < g.l2_entries && repeated; ++i) {
      Entry old = LoadEntry(g, content, i), now = LoadEntry(g, live, i);
      repeated = old.empty() || ((old.descriptor & ~kCopied) == (now.descriptor & ~kCopied) &&
                                 old.subclusters == now.subclusters);
    }
    if (repeated) return true;
  }
  return false;
}

// Every entry stands in the active L1 table at the same place.
bool OrphanJudge::OldL1Table(Bytes content) const {
  ByteVector live(std::min<uint64_t>(content.size(), image_.active.bytes()));
  std::vector<HostRange> bad;
  if (live.empty()) return false;
  ReadTolerant(bytes_, image_.active.offset, live, &bad);
  uint64_t used = 0;
  for (size_t i = 0; i + 8 <= content.size(); i += 8) {
    uint64_t old = LoadBe<uint64_t>(&content[i]) & ~kCopied;
    if (old == 0) continue;
    if (i + 8 > live.size() || old != (LoadBe<uint64_t>(&live[i]) & ~kCopied)) return false;
    ++used;
  }
  return used > 0;
}

Status OrphanJudge::FindCopies(const std::vector<uint64_t>& orphans, uint64_t limit) {
  std::map<Digest, std::vector<uint64_t>> wanted;
  ByteVector content(image_.geometry.cluster_size);
  std::vector<HostRange> bad;
  for (uint64_t cluster : orphans) {
    bad.clear();
    ReadTolerant(bytes_, cluster << image_.geometry.cluster_bits, content, &bad);
    if (bad.empty() && !AllZero(content)) wanted[DigestOf(content)].push_back(cluster);
  }
  uint64_t read = 0;
  uint64_t words = DivRoundUp(state_.claims().clusters(), 64);
  for (uint64_t w = 0; w < words && !wanted.empty(); ++w) {
    if (!state_.claims().ChunkTouched(w * 64 >> ClaimMap::kChunkBits)) continue;
    for (uint64_t bits = state_.claims().DataWord(w); bits != 0; bits &= bits - 1) {
      uint64_t cluster = w * 64 + static_cast<uint64_t>(__builtin_ctzll(bits));
      uint64_t offset = cluster << image_.geometry.cluster_bits;
      auto extent = bytes_.ExtentAt(offset);
      if (extent && extent->hole && extent->length >= content.size()) continue;
      if ((read += content.size()) > limit) return Ok();
      bad.clear();
      ReadTolerant(bytes_, offset, content, &bad);
      if (!bad.empty()) continue;
      auto it = wanted.find(DigestOf(content));
      if (it == wanted.end()) continue;
      for (uint64_t orphan : it->second) copies_[orphan] = true;
      wanted.erase(it);
    }
    IMG_RETURN_IF_ERROR(CheckStop());
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
