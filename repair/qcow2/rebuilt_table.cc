// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/rebuilt_table.h"

#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"
#include "formats/common/tolerant.h"
#include "repair/qcow2/sequence.h"

namespace imgfsck::qcow2 {

namespace {
// Of more lost tables than this, what other layers map is not compared: memory stays bounded.
constexpr size_t kMostCompared = 256;
}  // namespace

std::vector<RebuiltTable> TableBuilder::Build(
    const std::vector<LostTable>& lost, const std::vector<std::vector<TableSource>>& donated) {
  std::vector<RebuiltTable> tables(lost.size());
  std::vector<Work> works;
  size_t known_lost = 0;
  for (size_t i = 0; i < lost.size(); ++i) {
    const auto* from_donor = i < donated.size() && !donated[i].empty() ? &donated[i] : nullptr;
    bool unset = lost[i].why == LostTable::Why::kUnset;
    known_lost += !unset;
    if (unset && lost[i].found.empty() && from_donor == nullptr) continue;
    if (works.size() > kMostCompared) works.back().elsewhere = {};
    works.push_back(Begin(lost[i], from_donor, &tables[i]));
    TakeFromSources(&works.back());
    works.back().sources = {};
  }
  // Order says nothing of subclusters that the backing file provides.
  if (g_.extended_l2 && image_.header.backing_file_offset != 0) return tables;
  if (works.size() <= kMostCompared) TakeChanged(&works);
  for (const Work& work : works) {
    if (work.lost->why != LostTable::Why::kUnset) TakeInSequence(work);
  }
  if (works.size() == 1 && known_lost == 1 && image_.active.entries == 1) TakeWhole(works[0]);
  return tables;
}

TableBuilder::Work TableBuilder::Begin(const LostTable& lost,
                                       const std::vector<TableSource>* donated,
                                       RebuiltTable* table) {
  table->known.resize(g_.l2_entries);
  Work work{&lost, table, {}, {}, 0};
  uint64_t begin = lost.ref.column * g_.l2_span, size = image_.LayerSize(lost.ref.layer);
  work.limit = begin < size ? std::min(g_.l2_entries, g_.ClustersOf(size - begin)) : 0;
  std::vector<HostRange> bad;
  auto read = [&](uint64_t offset) {
    ByteVector bytes(g_.cluster_size);
    ReadTolerant(bytes_, offset, bytes, &bad);
    return bytes;
  };
  if (lost.why == LostTable::Why::kNoTable) {
    work.sources.push_back({read(lost.ref.offset), 0.9, "the damaged table still has it", false});
  }
  for (size_t i = 0; i < lost.found.size(); ++i) {
    bool complete = i == 0 && orphans_.Missing(lost.found[i] >> g_.cluster_bits) > 0;
    work.sources.push_back({read(lost.found[i]), lost.confidence,
                            "a table without an owner has it; " + lost.evidence, complete});
  }
  for (const TableRef& other : OtherTables(state_, lost.ref)) {
    ByteVector bytes = read(other.offset);
    if (AllZero(bytes) || Implausible(image_, bytes)) continue;
    if (work.elsewhere.empty()) work.elsewhere.resize(g_.l2_entries);
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      Entry entry = LoadEntry(g_, bytes, i);
      if (work.elsewhere[i].empty() && ClaimOf(image_, entry).kind == EntryClaim::Kind::kCluster) {
        work.elsewhere[i] = entry;
      }
    }
    std::string layer = other.active ? "the disk" : "a snapshot";
    work.sources.push_back(
        {std::move(bytes), 0.95, layer + " has it, and one more reference is counted", false});
  }
  if (donated != nullptr) {
    work.sources.insert(work.sources.end(), donated->begin(), donated->end());
  }
  return work;
}

void TableBuilder::Reserve(RebuiltTable* table) const {
  table->entries.resize(g_.l2_entries);
  table->from.resize(g_.l2_entries);
}

void TableBuilder::Adopt(const Work& work, uint64_t index, Entry entry, const Provenance& from) {
  const TableRef& ref = work.lost->ref;
  EntryClaim claim = ClaimOf(image_, entry);
  bool sole = ref.weight <= 1 && ref.active;
  for (uint64_t c = claim.first; c <= claim.last; ++c) {
    sole = sole && orphans_.Lone(c) && orphans_.Missing(c) == 1;
    orphans_.Take(c, std::max<uint64_t>(1, ref.weight));
  }
  entry.descriptor &= ~kCopied;
  if (sole && claim.kind == EntryClaim::Kind::kCluster) entry.descriptor |= kCopied;
  RebuiltTable& table = *work.table;
  Reserve(&table);
  table.entries[index] = entry;
  if (table.reasons.empty() || table.reasons.back() != from) table.reasons.push_back(from);
  table.from[index] = static_cast<uint32_t>(table.reasons.size());
  table.known[index] = true;
  ++table.reclaimed;
}

void TableBuilder::TakeFromSources(Work* work) {
  RebuiltTable* table = work->table;
  for (uint64_t i = 0; i < g_.l2_entries; ++i) {
    std::optional<Entry> zero;
    for (const TableSource& source : work->sources) {
      Entry entry = LoadEntry(g_, source.bytes, i);
      if (entry.empty()) {
        if (source.complete) table->known[i] = true;
        continue;
      }
      if (EntryInvalid(image_, entry)) continue;
      EntryClaim claim = ClaimOf(image_, entry);
      if (claim.kind == EntryClaim::Kind::kNone) {
        if (source.complete && !entry.compressed() && entry.host() == 0) zero = entry;
        continue;
      }
      if (!Reclaims(image_, orphans_, entry)) continue;
      Adopt(*work, i, entry, {source.confidence, source.evidence});
      break;
    }
    if (zero && !table->known[i]) {
      Reserve(table);
      table->entries[i] = *zero;
      table->known[i] = true;
    }
  }
}

void TableBuilder::Place(const Work& work, uint64_t index, uint64_t cluster, double confidence,
                         std::string_view evidence) {
  if (cluster == 0 || !orphans_.Lone(cluster)) return;
  uint64_t all = g_.extended_l2 ? 0xFFFFFFFF : 0;
  Adopt(work, index, {cluster << g_.cluster_bits, all}, {confidence, std::string(evidence)});
}

// Another layer maps these, but not to clusters that miss a reference: they were written since, and
// as many clusters are without an owner. Only where that layer was filled in order.
void TableBuilder::TakeChanged(std::vector<Work>* works) {
  struct Gap {
    const Work* work;
    uint64_t index;
  };
  std::vector<Gap> gaps;
  uint64_t steps = 0, up = 0, previous = 0;
  for (const Work& work : *works) {
    for (uint64_t i = 0; i < work.limit && !work.elsewhere.empty(); ++i) {
      uint64_t host = work.elsewhere[i].host();
      if (host == 0) continue;
      ++steps;
      up += host >= previous;
      previous = host;
      if (!work.table->known[i]) gaps.push_back({&work, i});
    }
  }
  if (gaps.empty() || up * 10 < steps * 9) return;
  std::vector<uint64_t> data = orphans_.DataIn(0, image_.ClusterCount(), gaps.size() + 1);
  if (data.size() != gaps.size()) return;
  for (size_t k = 0; k < gaps.size(); ++k) {
    Place(*gaps[k].work, gaps[k].index, data[k], 0.6,
          "as many clusters have no owner as were written since the snapshot");
  }
}

std::optional<uint64_t> TableBuilder::HostOf(const Work& work, int64_t index) const {
  const auto entries = static_cast<int64_t>(g_.l2_entries);
  const TableRef& ref = work.lost->ref;
  if (index < 0) {
    if (ref.column == 0) return std::nullopt;
    return HostAt(bytes_, image_, ref.layer, ref.column - 1,
                  static_cast<uint64_t>(index + entries));
  }
  if (index >= entries) {
    return HostAt(bytes_, image_, ref.layer, ref.column + 1,
                  static_cast<uint64_t>(index - entries));
  }
  if (work.table->entries.empty()) return std::nullopt;
  EntryClaim claim = ClaimOf(image_, work.table->entries[static_cast<size_t>(index)]);
  if (claim.kind != EntryClaim::Kind::kCluster) return std::nullopt;
  return claim.first;
}

void TableBuilder::TakeInSequence(const Work& work) {
  constexpr int64_t kFarthest = 16;
  const std::vector<bool>& known = work.table->known;
  for (uint64_t begin = 0, end; begin < work.limit; begin = end) {
    end = begin + 1;
    if (known[begin]) continue;
    while (end < work.limit && !known[end]) ++end;
    SequenceRun run;
    run.count = end - begin;
    run.was_mapped = true;
    const auto first = static_cast<int64_t>(begin), last = static_cast<int64_t>(end);
    run.left = HostOf(work, first - 1);
    run.right = HostOf(work, last);
    for (int64_t k = 1; run.left && k <= kFarthest; ++k, ++run.left_run) {
      if (HostOf(work, first - k) != *run.left - static_cast<uint64_t>(k - 1)) break;
    }
    for (int64_t k = 0; run.right && k < kFarthest; ++k, ++run.right_run) {
      if (HostOf(work, last + k) != *run.right + static_cast<uint64_t>(k)) break;
    }
    RunMatch match = MatchRun(state_, orphans_, run);
    if (match.confidence == 0) continue;
    for (uint64_t i = begin; i < end; ++i) {
      Place(work, i, match.clusters[i - begin], match.confidence, match.evidence);
    }
  }
}

// The disk's only table is gone, and as many clusters are without an owner as the disk has.
void TableBuilder::TakeWhole(const Work& work) {
  if (work.table->reclaimed > 0) return;
  std::vector<uint64_t> data = orphans_.DataIn(0, image_.ClusterCount(), work.limit + 1);
  if (data.size() != work.limit) return;
  for (uint64_t i = 0; i < work.limit; ++i) {
    Place(work, i, data[i], 0.6, "the disk was full, and its clusters mostly lie in its order");
  }
}

}  // namespace imgfsck::qcow2
