// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/claims.h"

#include <algorithm>

#include "analyzers/qcow2/entry_groups.h"
#include "base/checked.h"

namespace imgfsck::qcow2 {

Result<ClaimMap> ClaimMap::Make(uint64_t clusters) {
  ClaimMap map;
  map.clusters_ = clusters;
  // One word of slack, so that a run of 64 may cross into the last word.
  uint64_t words = DivRoundUp(clusters, 64) + 1;
  IMG_ASSIGN_OR_RETURN(map.data_, LazyArray<uint64_t>::Make(words));
  IMG_ASSIGN_OR_RETURN(map.meta_, LazyArray<uint64_t>::Make(words));
  IMG_ASSIGN_OR_RETURN(map.compressed_, LazyArray<uint64_t>::Make(words));
  IMG_ASSIGN_OR_RETURN(map.again_, LazyArray<uint64_t>::Make(words));
  IMG_ASSIGN_OR_RETURN(map.extra_, LazyArray<uint8_t>::Make(words * 64));
  IMG_ASSIGN_OR_RETURN(map.touched_, LazyArray<uint8_t>::Make(DivRoundUp(words * 64, kChunk)));
  return map;
}

void ClaimMap::AddMuch(uint64_t cluster, uint64_t weight) {
  uint8_t& extra = extra_[cluster];
  const uint64_t before = extra == kSaturated ? overflow_[cluster] : extra;
  overflow_[cluster] = SaturatingAdd(before, weight);
  extra = kSaturated;
}

void ClaimMap::AddExtra64(uint64_t first, uint64_t weight) {
  touched_[first >> kChunkBits] |= kTouched | kExtraTouched;
  touched_[(first + 63) >> kChunkBits] |= kTouched | kExtraTouched;
  if (AddTo64(&extra_[first], weight)) return;
  for (unsigned i = 0; i < 64; ++i) AddExtra(first + i, weight);
}

void ClaimMap::ClaimData64(const std::array<uint32_t, 64>& clusters, uint64_t weight) {
  uint64_t* const words = data_.data();
  uint8_t* const extras = extra_.data();
  uint8_t* const touched = touched_.data();
  // In no order, each is a miss of the cache: all are under way before the first is needed.
  for (uint32_t cluster : clusters) __builtin_prefetch(&words[cluster >> 6], 1);
  if (weight > 1) {
    for (uint32_t cluster : clusters) __builtin_prefetch(&extras[cluster], 1);
  }
  for (uint32_t cluster : clusters) {
    const uint64_t bit = uint64_t{1} << (cluster & 63), before = words[cluster >> 6];
    if ((before & bit) != 0) [[unlikely]] {
      ClaimData(cluster, weight);
      continue;
    }
    words[cluster >> 6] = before | bit;
    touched[cluster >> kChunkBits] |= kTouched;
    if (weight == 1) continue;
    touched[cluster >> kChunkBits] |= kExtraTouched;
    const uint64_t sum = extras[cluster] + weight - 1;
    if (sum < kSaturated) [[likely]] {
      extras[cluster] = static_cast<uint8_t>(sum);
    } else {
      AddMuch(cluster, weight - 1);
    }
  }
}

void ClaimMap::ClaimDataRun64(uint64_t first, uint64_t weight) {
  uint64_t word = first >> 6;
  unsigned shift = first & 63;
  touched_[first >> kChunkBits] |= kTouched;
  touched_[(first + 63) >> kChunkBits] |= kTouched;
  uint64_t low = ~uint64_t{0} << shift, high = shift == 0 ? 0 : ~low;
  uint64_t twice_low = data_[word] & low, twice_high = data_[word + 1] & high;
  data_[word] |= low;
  data_[word + 1] |= high;
  if (weight > 1) AddExtra64(first, weight - 1);
  if ((twice_low | twice_high) == 0) [[likely]]
    return;
  if (twice_low != 0) MarkAgain(word, twice_low);
  if (twice_high != 0) MarkAgain(word + 1, twice_high);
  for (unsigned i = 0; i < 64; ++i) {
    if (twice_low >> i & 1) AddExtra(word * 64 + i, 1);
    if (twice_high >> i & 1) AddExtra(word * 64 + 64 + i, 1);
  }
}

void ClaimMap::ClaimCompressed(uint64_t first, uint64_t last, uint64_t weight) {
  for (uint64_t c = first; c <= last && c < clusters_; ++c) {
    touched_[c >> kChunkBits] |= kTouched | kCompressed;
    uint64_t& word = compressed_[c >> 6];
    uint64_t bit = uint64_t{1} << (c & 63);
    AddExtra(c, (word & bit) != 0 ? weight : weight - 1);
    word |= bit;
  }
}

void ClaimMap::ClaimMeta(uint64_t first, uint64_t count, uint64_t weight) {
  if (first >= clusters_) return;
  count = std::min(count, clusters_ - first);
  for (uint64_t c = first; c < first + count; ++c) {
    touched_[c >> kChunkBits] |= kTouched | kMeta;
    uint64_t& word = meta_[c >> 6];
    uint64_t bit = uint64_t{1} << (c & 63);
    if ((word & bit) != 0) {
      MarkAgain(c >> 6, bit);
      AddExtra(c, weight);
    } else {
      word |= bit;
      AddExtra(c, weight - 1);
    }
  }
}

void ClaimMap::MergeExtras(const ClaimMap& other, uint64_t first) {
  uint8_t* own = &extra_[first];
  const uint8_t* more = &other.extra_[first];
  const unsigned most =
      unsigned{*std::max_element(own, own + 64)} + *std::max_element(more, more + 64);
  if (most < kSaturated) {
    for (unsigned i = 0; i < 64; ++i) own[i] = static_cast<uint8_t>(own[i] + more[i]);
    return;
  }
  for (uint64_t i = 0; i < 64; ++i) {
    if (more[i] == 0) continue;
    AddExtra(first + i, more[i] == kSaturated ? other.overflow_.at(first + i) : more[i]);
  }
}

void ClaimMap::Merge(const ClaimMap& other) {
  for (uint64_t chunk = 0; chunk < touched_.size(); ++chunk) {
    const uint8_t kinds = other.touched_[chunk];
    if (kinds == 0) continue;
    touched_[chunk] |= kinds;
    const uint64_t begin = chunk * (kChunk / 64);
    const uint64_t end = std::min<uint64_t>(begin + kChunk / 64, data_.size());
    for (uint64_t w = begin; w < end; ++w) {
      MergeWord(&data_, other.data_, w, true);
      if ((kinds & kMeta) != 0) MergeWord(&meta_, other.meta_, w, true);
      if ((kinds & kCompressed) != 0) MergeWord(&compressed_, other.compressed_, w, false);
      if ((kinds & kAgain) != 0) again_[w] |= other.again_[w];
      if ((kinds & kExtraTouched) != 0) MergeExtras(other, w * 64);
    }
  }
}

void ClaimMap::MergeWord(LazyArray<uint64_t>* kind, const LazyArray<uint64_t>& more, uint64_t w,
                         bool conflict) {
  const uint64_t twice = (*kind)[w] & more[w];
  (*kind)[w] |= more[w];
  if (twice == 0) return;
  if (conflict) MarkAgain(w, twice);
  for (uint64_t bits = twice; bits != 0; bits &= bits - 1) {
    AddExtra(w * 64 + static_cast<uint64_t>(__builtin_ctzll(bits)), 1);
  }
}

uint64_t ClaimMap::Count(uint64_t cluster) const {
  if (cluster >= clusters_) return 0;
  uint64_t count = uint64_t{IsData(cluster)} + IsMeta(cluster) + IsCompressed(cluster);
  if (!ChunkHasExtra(cluster >> kChunkBits)) return count;
  uint8_t extra = extra_[cluster];
  return extra == kSaturated ? SaturatingAdd(count, overflow_.at(cluster)) : count + extra;
}

bool ClaimMap::AnyConflict() const {
  for (uint64_t chunk = 0; chunk < chunks(); ++chunk) {
    if (!ChunkTouched(chunk)) continue;
    uint64_t begin = chunk * (kChunk / 64);
    uint64_t end = std::min<uint64_t>(begin + kChunk / 64, data_.size());
    for (uint64_t w = begin; w < end; ++w) {
      if (ConflictWord(w) != 0) return true;
    }
  }
  return false;
}

}  // namespace imgfsck::qcow2
