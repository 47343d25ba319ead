// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/refcounts.h"

#include <algorithm>
#include <unordered_set>

#include "analyzers/qcow2/entry_groups.h"
#include "base/interrupt.h"
#include "base/parallel.h"

namespace imgfsck::qcow2 {
namespace {

// Collects runs of differences of one piece of the file.
class RunBuilder {
 public:
  explicit RunBuilder(std::vector<CountRun>* runs, uint64_t file_clusters)
      : runs_(runs), file_clusters_(file_clusters) {}
  void Add(uint64_t cluster, uint64_t stored, uint64_t computed) {
    bool past = cluster >= file_clusters_;
    if (!runs_->empty()) {
      CountRun& last = runs_->back();
      if (last.cluster + last.length == cluster && last.stored == stored &&
          last.computed == computed && last.past_eof == past) {
        ++last.length;
        return;
      }
    }
    runs_->push_back({cluster, 1, stored, computed, past});
  }

 private:
  std::vector<CountRun>* runs_;
  uint64_t file_clusters_;
};

class Comparison {
 public:
  Comparison(const Image& image, const ClaimMap& claims) : image_(image), claims_(claims) {}

  // Compares block `index`; *highest as in CompareResult.
  void Block(uint64_t index, Bytes block, std::vector<CountRun>* runs, uint64_t* highest) const {
    const Geometry& g = image_.geometry;
    uint64_t first = index * g.block_entries;
    RunBuilder builder(runs, claims_.clusters());
    for (uint64_t i = 0; i < g.block_entries;) {
      uint64_t cluster = first + i;
      uint64_t step = std::min<uint64_t>(64, g.block_entries - i);
      if (step == 64 && Ordinary(block, i, cluster, highest)) {
        i += step;
        continue;
      }
      for (uint64_t end = i + step; i < end; ++i) {
        uint64_t stored = LoadRefcount(block, g.refcount_order, i);
        uint64_t computed = claims_.Count(first + i);
        if (stored != 0 || computed != 0) *highest = first + i + 1;
        if (stored != computed) builder.Add(first + i, stored, computed);
      }
    }
  }

  // Clusters [begin, end) have no block: every use of one is a difference.
  void Uncovered(uint64_t begin, uint64_t end, std::vector<CountRun>* runs,
                 uint64_t* highest) const {
    RunBuilder builder(runs, claims_.clusters());
    end = std::min(end, claims_.clusters());
    for (uint64_t c = begin; c < end;) {
      if (!claims_.ChunkTouched(c >> ClaimMap::kChunkBits)) {
        c = AlignDown(c, ClaimMap::kChunk) + ClaimMap::kChunk;
        continue;
      }
      if ((c & 63) == 0 && claims_.UsedWord(c >> 6) == 0) {
        c += 64;
        continue;
      }
      if (uint64_t computed = claims_.Count(c); computed != 0) {
        builder.Add(c, 0, computed);
        *highest = c + 1;
      }
      ++c;
    }
  }

 private:
  // True when 64 counts are as the claims say and nothing is in conflict; or all are zero past the
  // end.
  bool Ordinary(Bytes block, uint64_t i, uint64_t cluster, uint64_t* highest) const {
    const Geometry& g = image_.geometry;
    if (g.refcount_order < 3 && (i << g.refcount_order) % 8 != 0) return false;
    Bytes counts = block.subspan((i << g.refcount_order) / 8, (64u << g.refcount_order) / 8);
    uint64_t bits = 0;
    const uint8_t* extras = nullptr;
    if (cluster + 64 <= claims_.clusters()) {
      uint64_t chunk = cluster >> ClaimMap::kChunkBits;
      if (claims_.ChunkTouched(chunk)) {
        if (claims_.ChunkHasExtra(chunk)) extras = claims_.Extras64(cluster);
        if (claims_.ConflictWord(cluster >> 6) != 0) return false;
        bits = claims_.UsedWord(cluster >> 6);
      }
    } else if (cluster < claims_.clusters()) {
      return false;
    }
    if (bits == 0) return AllZero(counts) && (extras == nullptr || AllZero(Bytes(extras, 64)));
    if (g.refcount_order != 4) return false;
    if (extras == nullptr ? !Equal16(counts.data(), bits)
                          : !EqualShared16(counts.data(), bits, extras)) {
      return false;
    }
    *highest = cluster + 64 - static_cast<uint64_t>(__builtin_clzll(bits));
    return true;
  }

  const Image& image_;
  const ClaimMap& claims_;
};

}  // namespace

uint64_t LoadRefcount(Bytes block, unsigned order, uint64_t i) {
  switch (order) {
    case 0:
      return block[i / 8] >> (i % 8) & 1;
    case 1:
      return block[i / 4] >> (2 * (i % 4)) & 3;
    case 2:
      return block[i / 2] >> (4 * (i % 2)) & 15;
    case 3:
      return block[i];
    case 4:
      return LoadBe<uint16_t>(&block[2 * i]);
    case 5:
      return LoadBe<uint32_t>(&block[4 * i]);
    default:
      return LoadBe<uint64_t>(&block[8 * i]);
  }
}

bool StoreRefcount(MutableBytes block, unsigned order, uint64_t i, uint64_t value) {
  unsigned width = 1u << order;
  if (width < 64 && value >> width != 0) return false;
  if (width < 8) {
    uint64_t per_byte = 8 / width;
    unsigned shift = static_cast<unsigned>(width * (i % per_byte));
    unsigned mask = ((1u << width) - 1) << shift;
    uint8_t& byte = block[i / per_byte];
    byte = static_cast<uint8_t>((byte & ~mask) | (static_cast<unsigned>(value) << shift));
    return true;
  }
  switch (order) {
    case 3:
      block[i] = static_cast<uint8_t>(value);
      break;
    case 4:
      StoreBe(&block[2 * i], static_cast<uint16_t>(value));
      break;
    case 5:
      StoreBe(&block[4 * i], static_cast<uint32_t>(value));
      break;
    default:
      StoreBe(&block[8 * i], value);
      break;
  }
  return true;
}

uint64_t BlockOffset(const Image& image, uint64_t index) {
  if (index >= image.refcount_table.size()) return 0;
  uint64_t offset = image.refcount_table[index] & ~kRefcountTableReserved;
  if (!IsAligned(offset, image.geometry.cluster_size) || offset >= image.file_size) return 0;
  return offset;
}

std::vector<uint64_t> BlocksToCompare(const Image& image, uint64_t clusters) {
  const uint64_t within = DivRoundUp(clusters, image.geometry.block_entries);
  std::vector<uint64_t> blocks;
  std::unordered_set<uint64_t> seen;
  for (uint64_t i = 0; i < image.refcount_table.size(); ++i) {
    const uint64_t offset = BlockOffset(image, i);
    const bool again = offset != 0 && !seen.insert(offset).second;
    if (i < within || (offset != 0 && !again)) blocks.push_back(i);
  }
  return blocks;
}

bool HoldsCounts(const Image& image, const ClaimMap& claims, uint64_t index) {
  const Geometry& g = image.geometry;
  const uint64_t offset = BlockOffset(image, index), first = index * g.block_entries;
  if (offset == 0) return false;
  if (first >= claims.clusters()) return true;  // speaks for nothing that is used
  ByteVector block(g.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(*image.source, offset, block, &bad);
  uint64_t used = 0, right = 0;
  for (uint64_t i = 0; i < g.block_entries && first + i < claims.clusters(); ++i) {
    if (claims.IsConflict(first + i)) continue;
    const uint64_t count = claims.Count(first + i);
    used += count != 0;
    right += count != 0 && LoadRefcount(block, g.refcount_order, i) == count;
  }
  return right * 2 >= used;
}

Status CompareRefcounts(const Image& image, const ClaimMap& claims, unsigned threads,
                        const ProgressFn& progress, const CountRunVisitor& visit,
                        CompareResult* result) {
  constexpr size_t kBatch = 64;                   // blocks compared between two reports
  constexpr uint64_t kWorthAThread = 256 * kKiB;  // of refcount blocks
  const Geometry& g = image.geometry;
  Comparison comparison(image, claims);
  struct Piece {
    uint64_t index = 0;
    std::vector<CountRun> runs;
    uint64_t highest = 0;
    std::vector<HostRange> bad;
  };
  const unsigned workers = threads == 0 ? UsableCores() : threads;
  std::vector<ByteVector> buffers(workers);
  const std::vector<uint64_t> blocks = BlocksToCompare(image, claims.clusters());
  std::vector<Piece> pieces;
  auto work = [&](unsigned worker, size_t i) -> Status {
    Piece& piece = pieces[i];
    const uint64_t index = piece.index, offset = BlockOffset(image, index);
    if (offset == 0) {
      comparison.Uncovered(index * g.block_entries, (index + 1) * g.block_entries, &piece.runs,
                           &piece.highest);
      return CheckStop();
    }
    ByteVector& block = buffers[worker];
    block.resize(g.cluster_size);
    ReadTolerant(*image.source, offset, block, &piece.bad);
    comparison.Block(index, block, &piece.runs, &piece.highest);
    return CheckStop();
  };
  for (size_t next = 0; next < blocks.size();) {
    pieces.clear();
    for (; next < blocks.size() && pieces.size() < kBatch; ++next) {
      pieces.push_back({blocks[next], {}, 0, {}});
    }
    const uint64_t worth = 1 + pieces.size() * g.cluster_size / kWorthAThread;
    IMG_RETURN_IF_ERROR(ParallelFor(
        pieces.size(), static_cast<unsigned>(std::min<uint64_t>(workers, worth)), work));
    for (Piece& piece : pieces) {
      result->highest_cluster = std::max(result->highest_cluster, piece.highest);
      for (const CountRun& run : piece.runs) visit(run);
      result->unreadable.insert(result->unreadable.end(), piece.bad.begin(), piece.bad.end());
    }
    if (progress) progress("reference counts", next, blocks.size());
  }
  std::vector<CountRun> tail;
  comparison.Uncovered(image.refcount_table.size() * g.block_entries, claims.clusters(), &tail,
                       &result->highest_cluster);
  for (const CountRun& run : tail) visit(run);
  return Ok();
}

}  // namespace imgfsck::qcow2
