// SPDX-License-Identifier: Apache-2.0
// Who uses which cluster, counted in compact arrays: one bit a cluster for each kind of use, and an
// extra count only where a cluster is used more than once. Memory follows what is touched, not the
// file's size. Each thread fills a map of its own; Merge() puts them together, whatever the order,
// with the same result.
#pragma once

#include <array>
#include <unordered_map>

#include "base/lazy_array.h"

namespace imgfsck::qcow2 {

class ClaimMap {
 public:
  static constexpr unsigned kChunkBits = 15;  // clusters a chunk, as a power of two
  static constexpr uint64_t kChunk = uint64_t{1} << kChunkBits;

  static Result<ClaimMap> Make(uint64_t clusters);
  // Most clusters will have several references, as with snapshots: larger pages then cost less.
  void ExpectSharing() { extra_.AdviseLargePages(); }
  uint64_t clusters() const { return clusters_; }

  // `weight`: how many references this claim stands for. Clusters past the end are ignored.
  void ClaimData(uint64_t cluster, uint64_t weight) {
    if (cluster >= clusters_) return;
    uint64_t& word = data_[cluster >> 6];
    const uint64_t bit = uint64_t{1} << (cluster & 63);
    if ((word & bit) != 0) [[unlikely]] {
      MarkAgain(cluster >> 6, bit);
    } else {
      word |= bit;
      --weight;
    }
    touched_[cluster >> kChunkBits] |= kTouched;
    if (weight > 0) AddExtra(cluster, weight);
  }
  // 64 clusters inside the file: any; in a row.
  void ClaimData64(const std::array<uint32_t, 64>& clusters, uint64_t weight);
  void ClaimDataRun64(uint64_t first, uint64_t weight);
  void ClaimCompressed(uint64_t first, uint64_t last, uint64_t weight);
  void ClaimMeta(uint64_t first, uint64_t count, uint64_t weight = 1);
  // References that add to the count of clusters already claimed, without a conflict.
  void AddWeight(uint64_t cluster, uint64_t weight) { AddExtra(cluster, weight); }
  void Merge(const ClaimMap& other);

  uint64_t Count(uint64_t cluster) const;
  bool IsData(uint64_t c) const { return Bit(data_, c); }
  bool IsMeta(uint64_t c) const { return Bit(meta_, c); }
  bool IsCompressed(uint64_t c) const { return Bit(compressed_, c); }
  bool IsUsed(uint64_t c) const {
    return c < clusters_ && ((data_[c >> 6] | meta_[c >> 6] | compressed_[c >> 6]) >> (c & 63) & 1);
  }
  // Claimed twice in a way that cannot be right unless different layers share it.
  bool IsConflict(uint64_t c) const { return (ConflictWord(c >> 6) >> (c & 63) & 1) != 0; }
  uint64_t ConflictWord(uint64_t word) const {
    const uint8_t kinds = Kinds(word);
    if ((kinds & (kMeta | kCompressed | kAgain)) == 0) return 0;
    uint64_t d = data_[word], m = meta_[word];
    if ((kinds & (kCompressed | kAgain)) == 0) return d & m;
    uint64_t z = compressed_[word];
    return again_[word] | (d & m) | (d & z) | (m & z);
  }
  uint64_t DataWord(uint64_t word) const { return data_[word]; }
  uint64_t UsedWord(uint64_t word) const {
    const uint64_t used = data_[word] | meta_[word];
    return (Kinds(word) & kCompressed) == 0 ? used : used | compressed_[word];
  }
  // Chunks of kChunk clusters in which anything is claimed; ... more than once.
  uint64_t chunks() const { return touched_.size(); }
  bool ChunkTouched(uint64_t chunk) const { return touched_[chunk] != 0; }
  bool ChunkHasExtra(uint64_t chunk) const { return (touched_[chunk] & kExtraTouched) != 0; }
  bool AnyConflict() const;
  // Calls visit(cluster) for every conflict, ascending.
  template <class Visit>
  void ForEachConflict(Visit visit) const {
    for (uint64_t chunk = 0; chunk < chunks(); ++chunk) {
      if (!ChunkTouched(chunk)) continue;
      uint64_t words = std::min<uint64_t>(kChunk / 64, again_.size() - chunk * (kChunk / 64));
      for (uint64_t w = chunk * (kChunk / 64), end = w + words; w < end; ++w) {
        for (uint64_t bits = ConflictWord(w); bits != 0; bits &= bits - 1) {
          visit(w * 64 + static_cast<uint64_t>(__builtin_ctzll(bits)));
        }
      }
    }
  }

  void AddExtra(uint64_t cluster, uint64_t weight) {
    if (weight == 0 || cluster >= clusters_) return;
    touched_[cluster >> kChunkBits] |= kTouched | kExtraTouched;
    uint8_t& extra = extra_[cluster];
    if (weight < uint64_t{kSaturated} - extra) [[likely]] {
      extra = static_cast<uint8_t>(extra + weight);
    } else {
      AddMuch(cluster, weight);
    }
  }
  // References beyond the first of 64 clusters in a row; kSaturated: ask Count().
  const uint8_t* Extras64(uint64_t first) const { return &extra_[first]; }
  static constexpr uint8_t kSaturated = 255;

 private:
  static constexpr uint8_t kTouched = 1, kExtraTouched = 2;
  static constexpr uint8_t kMeta = 4, kCompressed = 8, kAgain = 16;
  // What kinds of claims the chunk of a word of 64 clusters has. Of a kind that it has not, the
  // bits are best left alone: to look at them costs a page fault.
  uint8_t Kinds(uint64_t word) const { return touched_[word >> (kChunkBits - 6)]; }
  void MarkAgain(uint64_t word, uint64_t bits) {
    again_[word] |= bits;
    touched_[word >> (kChunkBits - 6)] |= kAgain;
  }
  void AddMuch(uint64_t cluster, uint64_t weight);
  void AddExtra64(uint64_t first, uint64_t weight);
  void MergeWord(LazyArray<uint64_t>* kind, const LazyArray<uint64_t>& more, uint64_t w,
                 bool conflict);
  void MergeExtras(const ClaimMap& other, uint64_t first);
  static bool Bit(const LazyArray<uint64_t>& bits, uint64_t i) {
    return bits[i >> 6] >> (i & 63) & 1;
  }

  uint64_t clusters_ = 0;
  LazyArray<uint64_t> data_, meta_, compressed_, again_;
  LazyArray<uint8_t> extra_;    // references beyond the first of each kind; 255: see overflow_
  LazyArray<uint8_t> touched_;  // one a chunk: its kinds
  std::unordered_map<uint64_t, uint64_t> overflow_;
};

}  // namespace imgfsck::qcow2
