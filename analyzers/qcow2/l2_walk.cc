// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/l2_walk.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_set>

#include "analyzers/qcow2/table_walker.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kItemBytes = kMiB;            // L2 tables a work item holds, about
constexpr uint64_t kReadBytes = 128 * kKiB;      // neighbouring tables are read together up to this
constexpr uint64_t kColumnBytes = 256 * kMiB;    // tables of one column kept in memory at once
constexpr uint64_t kCounterBudget = 256 * kMiB;  // of per-thread counters
constexpr uint64_t kMostLargePages = 64 * kMiB;  // in which counters of shared clusters may be

// A piece of a chunk of columns, worked on by one thread.
struct Item {
  size_t begin = 0, end = 0;  // tables
  Findings findings;
  std::vector<HostRange> unreadable;
  std::vector<Unflagged> unflagged;
};
constexpr size_t kMostUnflagged = 1 << 16;  // kept until the walk ends; more are findings at once

// The first bytes of a buffer that grows and is never filled twice.
MutableBytes Room(ByteVector* buffer, uint64_t size) {
  if (buffer->size() < size) buffer->resize(size);
  return MutableBytes(*buffer).first(size);
}

// Clusters with tables that have been met. A bit each, or, where tables are so few and far between
// that nearly every page of bits would be written for one of them, the clusters alone.
class SeenTables {
 public:
  Status Prepare(uint64_t clusters, uint64_t most_tables) {
    constexpr uint64_t kBitsOfOne = 512;  // that a number in a set takes
    if (most_tables <= clusters / kBitsOfOne) return Ok();
    IMG_ASSIGN_OR_RETURN(bits_, LazyArray<uint64_t>::Make(DivRoundUp(clusters, 64)));
    return Ok();
  }
  // False when it was there already.
  bool Add(uint64_t cluster) {
    if (bits_.size() == 0) return few_.insert(cluster).second;
    uint64_t& word = bits_[cluster >> 6];
    const uint64_t bit = uint64_t{1} << (cluster & 63), before = word;
    word |= bit;
    return (before & bit) == 0;
  }

 private:
  LazyArray<uint64_t> bits_;
  std::unordered_set<uint64_t> few_;
};

class Walk {
 public:
  Walk(const Image& image, const Columns& columns, const CheckOptions& options, WalkResult* result,
       Findings* findings)
      : image_(image), columns_(columns), options_(options), result_(result), findings_(findings) {}

  Status Run();

 private:
  Status PrepareWorkers();
  void DropRepeated();
  void MakeItems();
  Status WalkItem(unsigned worker, Item* item);
  Status WalkNeighbours(unsigned worker, Item* item, std::vector<const TableRef*>* singles);
  Status WalkShared(unsigned worker, Item* item, std::span<const TableRef> tables);
  void Unreadable(Item* item, const TableRef& table, const std::vector<HostRange>& bad);
  void ReportImplausible();
  void AddRepeatedWeights();
  void KeepUnflagged(const std::vector<Unflagged>& found);
  void JudgeUnflagged();

  const Image& image_;
  const Columns& columns_;
  const CheckOptions& options_;
  WalkResult* result_;
  Findings* findings_;
  std::vector<ClaimMap> extra_maps_;  // of workers 1…; worker 0 has the result's
  std::vector<std::unique_ptr<TableWalker>> workers_;
  std::vector<ByteVector> buffers_;  // each worker's, for what it reads
  std::vector<TableRef> tables_;
  std::vector<Item> items_;
  std::vector<Unflagged> unflagged_;
  std::vector<TableRef> unflagged_tables_;  // whose L1 entry lacks COPIED
  SeenTables seen_;
};

Status Walk::PrepareWorkers() {
  unsigned threads = options_.threads != 0 ? options_.threads : UsableCores();
  uint64_t clusters = image_.ClusterCount();
  // Bits and, at worst, a byte a cluster for every further thread.
  uint64_t affordable = 1 + kCounterBudget / std::max<uint64_t>(1, clusters + clusters / 2);
  threads = static_cast<unsigned>(std::min<uint64_t>({threads, affordable, 64}));
  workers_.push_back(std::make_unique<TableWalker>(image_, &result_->claims));
  extra_maps_.reserve(threads);
  for (unsigned i = 1; i < threads; ++i) {
    IMG_ASSIGN_OR_RETURN(auto map, ClaimMap::Make(clusters));
    extra_maps_.push_back(std::move(map));
    workers_.push_back(std::make_unique<TableWalker>(image_, &extra_maps_.back()));
  }
  buffers_.resize(workers_.size());
  if (image_.LayerCount() > 1 && clusters <= kMostLargePages) {
    result_->claims.ExpectSharing();
    for (ClaimMap& map : extra_maps_) map.ExpectSharing();
  }
  return seen_.Prepare(clusters, SaturatingMul(columns_.count(), image_.LayerCount()));
}

// A table already walked in another column is claimed again (a conflict) but not walked again.
void Walk::DropRepeated() {
  size_t kept = 0;
  for (const TableRef& table : tables_) {
    uint64_t cluster = table.offset >> image_.geometry.cluster_bits;
    result_->claims.ClaimMeta(cluster, 1, table.weight);
    if (table.active && (table.copied != (table.weight == 1))) {
      if (!table.copied && unflagged_tables_.size() < kMostUnflagged) {
        unflagged_tables_.push_back(table);
      } else {
        findings_->Add(L1CopiedFinding(image_, table));
      }
    }
    if (!seen_.Add(cluster)) {
      if (result_->repeated.size() < kMaxRepeatedTables) result_->repeated.push_back(table);
      continue;
    }
    tables_[kept++] = table;
  }
  tables_.resize(kept);
  result_->tables += kept;
}

void Walk::MakeItems() {
  items_.clear();
  uint64_t per_item = std::max<uint64_t>(1, kItemBytes / image_.geometry.cluster_size);
  for (size_t at = 0; at < tables_.size();) {
    size_t end = std::min<size_t>(at + per_item, tables_.size());
    // A column is never torn apart.
    while (end < tables_.size() && tables_[end].column == tables_[end - 1].column) ++end;
    items_.push_back({at, end, Findings(findings_->keep()), {}, {}});
    at = end;
  }
}

void Walk::Unreadable(Item* item, const TableRef& table, const std::vector<HostRange>& bad) {
  for (const HostRange& range : bad) {
    item->unreadable.push_back(range);
    Finding f;
    f.problem = Problem::kImageUnreadable;
    f.structure = image_.TableName(table.layer, table.column);
    f.host = range;
    f.layer = image_.LayerName(table.layer);
    uint64_t first = (range.offset.value - table.offset) / image_.geometry.l2_entry_size;
    uint64_t entries = range.length / image_.geometry.l2_entry_size;
    f.guest = MakeGuestRange((table.column * image_.geometry.l2_entries + first)
                                 << image_.geometry.cluster_bits,
                             entries << image_.geometry.cluster_bits);
    item->findings.Add(std::move(f));
  }
}

Status Walk::WalkNeighbours(unsigned worker, Item* item, std::vector<const TableRef*>* singles) {
  uint64_t size = image_.geometry.cluster_size;
  std::sort(singles->begin(), singles->end(),
            [](const TableRef* a, const TableRef* b) { return a->offset < b->offset; });
  ByteVector& buffer = buffers_[worker];
  std::vector<HostRange> bad;
  for (size_t i = 0; i < singles->size();) {
    size_t end = i + 1;
    while (end < singles->size() && (end - i + 1) * size <= kReadBytes &&
           (*singles)[end]->offset == (*singles)[end - 1]->offset + size) {
      ++end;
    }
    const MutableBytes read = Room(&buffer, (end - i) * size);
    bad.clear();
    ReadTolerant(*image_.source, (*singles)[i]->offset, read, &bad);
    for (size_t k = i; k < end; ++k) {
      const TableRef& table = *(*singles)[k];
      std::vector<HostRange> own;
      for (const HostRange& r : bad) {
        if (r.Overlaps(MakeHostRange(table.offset, size))) own.push_back(r);
      }
      if (!own.empty()) Unreadable(item, table, own);
      workers_[worker]->WalkSingle(table, read.subspan((k - i) * size, size));
    }
    i = end;
  }
  singles->clear();
  return CheckStop();
}

Status Walk::WalkShared(unsigned worker, Item* item, std::span<const TableRef> tables) {
  uint64_t size = image_.geometry.cluster_size;
  // More tables in one column than memory allows: those beyond are walked in batches of their own.
  size_t batch = std::max<size_t>(2, kColumnBytes / size);
  for (size_t at = 0; at < tables.size(); at += batch) {
    auto part = tables.subspan(at, std::min(batch, tables.size() - at));
    const MutableBytes read = Room(&buffers_[worker], part.size() * size);
    std::vector<Bytes> bytes;
    for (size_t k = 0; k < part.size(); ++k) {
      MutableBytes target = read.subspan(k * size, size);
      std::vector<HostRange> bad;
      ReadTolerant(*image_.source, part[k].offset, target, &bad);
      if (!bad.empty()) Unreadable(item, part[k], bad);
      bytes.push_back(target);
    }
    workers_[worker]->WalkColumn(part, bytes);
    IMG_RETURN_IF_ERROR(CheckStop());
  }
  return Ok();
}

Status Walk::WalkItem(unsigned worker, Item* item) {
  workers_[worker]->findings = &item->findings;
  workers_[worker]->unflagged = &item->unflagged;
  std::vector<const TableRef*> singles;
  for (size_t i = item->begin; i < item->end;) {
    size_t end = i + 1;
    while (end < item->end && tables_[end].column == tables_[i].column) ++end;
    if (end == i + 1) {
      singles.push_back(&tables_[i]);
    } else {
      IMG_RETURN_IF_ERROR(WalkShared(worker, item, std::span(tables_).subspan(i, end - i)));
    }
    i = end;
  }
  return WalkNeighbours(worker, item, &singles);
}

void Walk::ReportImplausible() {
  std::sort(result_->implausible.begin(), result_->implausible.end(),
            [](const TableRef& a, const TableRef& b) {
              return std::tie(a.column, a.offset) < std::tie(b.column, b.offset);
            });
  for (const TableRef& table : result_->implausible) {
    Finding f = EntryFinding(image_, table, 0, Problem::kQcow2L2Implausible);
    f.host = MakeHostRange(table.offset, image_.geometry.cluster_size);
    f.guest = MakeGuestRange(table.column * image_.geometry.l2_span, image_.geometry.l2_span);
    findings_->Add(std::move(f));
  }
}

void Walk::AddRepeatedWeights() {
  std::sort(result_->repeated.begin(), result_->repeated.end(),
            [](const TableRef& a, const TableRef& b) {
              return std::tie(a.offset, a.column) < std::tie(b.offset, b.column);
            });
  const Geometry& g = image_.geometry;
  ByteVector bytes(g.cluster_size);
  for (size_t begin = 0, end; begin < result_->repeated.size(); begin = end) {
    uint64_t weight = 0, offset = result_->repeated[begin].offset;
    for (end = begin; end < result_->repeated.size() && result_->repeated[end].offset == offset;
         ++end) {
      weight += result_->repeated[end].weight;
    }
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, offset, bytes, &bad);
    if (Implausible(image_, bytes)) continue;
    for (uint64_t i = 0; i < g.l2_entries; ++i) {
      EntryClaim claim = ClaimOf(image_, LoadEntry(g, bytes, i));
      if (claim.kind == EntryClaim::Kind::kNone) continue;
      for (uint64_t c = claim.first; c <= claim.last; ++c) result_->claims.AddWeight(c, weight);
    }
  }
}

void Walk::KeepUnflagged(const std::vector<Unflagged>& found) {
  for (const Unflagged& entry : found) {
    if (unflagged_.size() < kMostUnflagged) {
      unflagged_.push_back(entry);
    } else {
      findings_->Add(
          EntryFinding(image_, entry.table, entry.index, Problem::kQcow2L2Copied, kCopiedClear));
    }
  }
}

// What is shared across columns, as by a snapshot that maps it at another place, has no COPIED.
void Walk::JudgeUnflagged() {
  const ClaimMap& claims = result_->claims;
  for (const TableRef& table : unflagged_tables_) {
    if (claims.Count(table.offset >> image_.geometry.cluster_bits) > 1) continue;
    findings_->Add(L1CopiedFinding(image_, table));
  }
  for (const Unflagged& entry : unflagged_) {
    if (claims.Count(entry.cluster) > 1) continue;
    findings_->Add(
        EntryFinding(image_, entry.table, entry.index, Problem::kQcow2L2Copied, kCopiedClear));
  }
}

Status Walk::Run() {
  IMG_RETURN_IF_ERROR(PrepareWorkers());
  uint64_t step = columns_.ChunkSize();
  for (uint64_t begin = 0; begin < columns_.count(); begin += step) {
    uint64_t end = std::min(begin + step, columns_.count());
    columns_.Read(begin, end, &tables_, findings_, &result_->unreadable);
    DropRepeated();
    MakeItems();
    std::mutex progress_mutex;
    size_t done = 0;
    IMG_RETURN_IF_ERROR(
        ParallelFor(items_.size(), static_cast<unsigned>(workers_.size()),
                    [&](unsigned worker, size_t item) -> Status {
                      IMG_RETURN_IF_ERROR(WalkItem(worker, &items_[item]));
                      if (options_.progress) {
                        std::lock_guard lock(progress_mutex);
                        ++done;
                        uint64_t columns_done = begin + (end - begin) * done / items_.size();
                        options_.progress("L2 tables", columns_done, columns_.count());
                      }
                      return Ok();
                    }));
    for (Item& item : items_) {
      findings_->Merge(std::move(item.findings));
      auto& all = result_->unreadable;
      all.insert(all.end(), item.unreadable.begin(), item.unreadable.end());
      KeepUnflagged(item.unflagged);
    }
  }
  for (auto& worker : workers_) {
    result_->counts.allocated_clusters += worker->counts.allocated_clusters;
    result_->counts.fragmented_clusters += worker->counts.fragmented_clusters;
    result_->counts.compressed_clusters += worker->counts.compressed_clusters;
    result_->data_file_end = std::max(result_->data_file_end, worker->data_file_end);
    auto append = [](auto* to, const auto& from) {
      to->insert(to->end(), from.begin(), from.end());
    };
    append(&result_->empty_tables, worker->empty_tables);
    append(&result_->implausible, worker->implausible);
    result_->streams.Merge(std::move(worker->streams));
  }
  std::sort(result_->empty_tables.begin(), result_->empty_tables.end(),
            [](const TableRef& a, const TableRef& b) {
              return std::tie(a.column, a.offset) < std::tie(b.column, b.offset);
            });
  for (const ClaimMap& map : extra_maps_) result_->claims.Merge(map);
  ReportImplausible();
  AddRepeatedWeights();
  JudgeUnflagged();
  return Ok();
}

}  // namespace

Finding L1CopiedFinding(const Image& image, const TableRef& table) {
  Finding f;
  f.problem = Problem::kQcow2L1Copied;
  f.structure = "l1";
  f.host = MakeHostRange(image.active.offset + table.column * 8, 8);
  f.layer = kActiveLayer;
  f.guest = MakeGuestRange(table.column * image.geometry.l2_span, image.geometry.l2_span);
  f.detail = table.copied ? "set, but snapshots share the table" : kCopiedClear;
  return f;
}

Status WalkTables(const Image& image, const Columns& columns, const CheckOptions& options,
                  WalkResult* result, Findings* findings) {
  return Walk(image, columns, options, result, findings).Run();
}

}  // namespace imgfsck::qcow2
