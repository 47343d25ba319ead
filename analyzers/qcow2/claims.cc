// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/claims.h"

#include <algorithm>

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
  uint8_t* extras = &extra_[first];
  const uint8_t most = *std::max_element(extras, extras + 64);
  if (weight < uint64_t{kSaturated} - most) {
    for (unsigned i = 0; i < 64; ++i) extras[i] = static_cast<uint8_t>(extras[i] + weight);
  } else {
    for (unsigned i = 0; i < 64; ++i) AddExtra(first + i, weight);
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
  again_[word] |= twice_low;
  again_[word + 1] |= twice_high;
  for (unsigned i = 0; i < 64; ++i) {
    if (twice_low >> i & 1) AddExtra(word * 64 + i, 1);
    if (twice_high >> i & 1) AddExtra(word * 64 + 64 + i, 1);
  }
}

void ClaimMap::ClaimCompressed(uint64_t first, uint64_t last, uint64_t weight) {
  for (uint64_t c = first; c <= last && c < clusters_; ++c) {
    touched_[c >> kChunkBits] |= kTouched;
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
    touched_[c >> kChunkBits] |= kTouched;
    uint64_t& word = meta_[c >> 6];
    uint64_t bit = uint64_t{1} << (c & 63);
    if ((word & bit) != 0) {
      MarkAgain(c);
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
    if (other.touched_[chunk] == 0) continue;
    bool extras = (other.touched_[chunk] & kExtraTouched) != 0;
    touched_[chunk] |= other.touched_[chunk];
    uint64_t begin = chunk * (kChunk / 64);
    uint64_t end = std::min<uint64_t>(begin + kChunk / 64, data_.size());
    for (uint64_t w = begin; w < end; ++w) {
      uint64_t data_twice = data_[w] & other.data_[w], meta_twice = meta_[w] & other.meta_[w];
      uint64_t compressed_twice = compressed_[w] & other.compressed_[w];
      data_[w] |= other.data_[w];
      meta_[w] |= other.meta_[w];
      compressed_[w] |= other.compressed_[w];
      again_[w] |= other.again_[w] | data_twice | meta_twice;
      for (uint64_t twice : {data_twice, meta_twice, compressed_twice}) {
        for (; twice != 0; twice &= twice - 1) {
          AddExtra(w * 64 + static_cast<uint64_t>(__builtin_ctzll(twice)), 1);
        }
      }
      if (extras) MergeExtras(other, w * 64);
    }
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
