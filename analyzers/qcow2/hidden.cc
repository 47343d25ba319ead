// SPDX-License-Identifier: Apache-2.0
// Leaked clusters that are no waste: the L2 table that led to them was zeroed, or the snapshot that
// owned them is no longer listed. To QEMU both look like leaks in a sound image.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/orphans.h"
#include "analyzers/qcow2/state.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kMaxLeaksLookedAt = 4096;      // clusters whose content is looked at
constexpr uint64_t kMaxLeaksGlancedAt = 1 << 20;  // clusters of which a sector is looked at

// Calls visit(cluster) for leaked clusters that nothing refers to, until it returns false.
template <class Visit>
void ForEachOrphan(const CheckState& state, Visit visit, uint64_t left = kMaxLeaksLookedAt) {
  for (const CountRun& run : state.leaks) {
    if (run.computed != 0) continue;
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      if (left-- == 0 || !visit(c)) return;
    }
  }
}

bool HasContent(const CheckState& state, uint64_t cluster, ByteVector* buffer) {
  const Image& image = *state.image;
  uint64_t offset = cluster << image.geometry.cluster_bits;
  auto extent = image.source->ExtentAt(offset);
  if (extent && extent->hole && extent->length >= image.geometry.cluster_size) return false;
  buffer->resize(image.geometry.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(*image.source, offset, *buffer, &bad);
  return !AllZero(*buffer);
}

void JudgeEmptyTables(const CheckState& state, Findings* out) {
  if (state.walk.empty_tables.empty()) return;
  const Image& image = *state.image;
  ByteVector buffer;
  bool content = false;
  ForEachOrphan(state, [&](uint64_t c) {
    content = HasContent(state, c, &buffer);
    return !content;
  });
  if (!content) return;
  for (const TableRef& table : state.walk.empty_tables) {
    Finding f;
    f.problem = Problem::kQcow2L2EmptyWithLeaks;
    f.structure = image.TableName(table.layer, table.column);
    f.layer = image.LayerName(table.layer);
    f.host = MakeHostRange(table.offset, image.geometry.cluster_size);
    f.guest = MakeGuestRange(table.column * image.geometry.l2_span, image.geometry.l2_span);
    out->Add(std::move(f));
  }
}

// A cluster that holds pointers to L2 tables and nothing else: counted clusters, aligned, in order
// of an L1 table (no repeats).
bool LooksLikeL1(const Image& image, Bytes cluster) {
  uint64_t used = 0;
  std::vector<uint64_t> offsets;
  for (size_t i = 0; i + 8 <= cluster.size(); i += 8) {
    uint64_t value = LoadBe<uint64_t>(&cluster[i]);
    if (value == 0) continue;
    uint64_t offset = value & kOffsetMask;
    if ((value & kL1Reserved) != 0 || offset == 0 || offset >= image.file_size ||
        !IsAligned(offset, image.geometry.cluster_size) ||
        StoredCount(image, offset >> image.geometry.cluster_bits) == 0) {
      return false;
    }
    if (++used <= 64) offsets.push_back(offset);
  }
  std::sort(offsets.begin(), offsets.end());
  return used > 0 && std::adjacent_find(offsets.begin(), offsets.end()) == offsets.end();
}

// The first table of a candidate L1 must itself look like an L2 table with counted clusters.
bool LeadsToL2(const Image& image, Bytes l1) {
  for (size_t i = 0; i + 8 <= l1.size(); i += 8) {
    uint64_t offset = LoadBe<uint64_t>(&l1[i]) & kOffsetMask;
    if (offset == 0) continue;
    ByteVector table(image.geometry.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image.source, offset, table, &bad);
    bool any = false;
    for (uint64_t k = 0; k < image.geometry.l2_entries; ++k) {
      Entry entry = LoadEntry(image.geometry, table, k);
      if (entry.empty()) continue;
      if (EntryInvalid(image, entry)) return false;
      any = true;
    }
    return any;
  }
  return false;
}

// Tables that `listed` has belong to an L1 table that was found.
void JudgeOrphanL1(const CheckState& state, std::set<uint64_t>* listed, Findings* out) {
  const Image& image = *state.image;
  ByteVector buffer;
  ForEachOrphan(state, [&](uint64_t c) {
    if (HasContent(state, c, &buffer) && LooksLikeL1(image, buffer) && LeadsToL2(image, buffer)) {
      Finding f;
      f.problem = Problem::kQcow2SnapOrphanL1;
      f.layer = kUnlistedLayer;
      f.structure = "orphan-l1";
      f.host = MakeHostRange(c << image.geometry.cluster_bits, image.geometry.cluster_size);
      out->Add(std::move(f));
      for (size_t i = 0; i + 8 <= buffer.size(); i += 8) {
        listed->insert(LoadBe<uint64_t>(&buffer[i]) & kOffsetMask);
      }
    }
    return true;
  });
}

// The column of the disk that no L2 table covers, where there is one and no more.
std::optional<uint64_t> OnlyEmptyColumn(const Image& image) {
  constexpr uint64_t kEntries = 8192;  // read at a time
  const uint64_t needed = DivRoundUp(image.header.size, image.geometry.l2_span);
  if (image.active.entries < needed) return std::nullopt;
  std::optional<uint64_t> found;
  ByteVector bytes;
  for (uint64_t begin = 0; begin < needed; begin += kEntries) {
    bytes.resize(std::min(kEntries, needed - begin) * 8);
    std::vector<HostRange> bad;
    ReadTolerant(*image.source, image.active.offset + begin * 8, bytes, &bad);
    if (!bad.empty()) return std::nullopt;
    for (size_t at = 0; at < bytes.size(); at += 8) {
      if ((LoadBe<uint64_t>(&bytes[at]) & kOffsetMask) != 0) continue;
      if (found) return std::nullopt;
      found = begin + at / 8;
    }
  }
  return found;
}

// L2 tables that lost their L1 entry, and with it all the data that they lead to.
void JudgeOrphanL2(const CheckState& state, const std::set<uint64_t>& listed, Findings* out) {
  const Image& image = *state.image;
  const Geometry& g = image.geometry;
  Orphans orphans(state);
  ByteVector start(kSector), table(g.cluster_size);
  std::vector<HostRange> bad;
  uint64_t found = 0;
  std::optional<Finding> first;  // held back until it is known whether there is another
  auto look = [&](uint64_t c) {
    uint64_t offset = c << g.cluster_bits;
    if (listed.contains(offset)) return true;
    // Nearly all are data: a sector tells.
    ReadTolerant(*image.source, offset, start, &bad);
    for (uint64_t i = 0; i < kSector / g.l2_entry_size; ++i) {
      if (EntryInvalid(image, LoadEntry(g, start, i))) return true;
    }
    ReadTolerant(*image.source, offset, table, &bad);
    const FoundTable appraised = Appraise(image, orphans, table);
    if (appraised.reclaims == 0 || appraised.reclaims * 2 < appraised.entries) return true;
    Finding f;
    f.problem = Problem::kQcow2L2Orphan;
    f.structure = "orphan-l2";
    // A crash before the L1 entry was written leaves the same behind: by itself it proves nothing.
    f.severity = Severity::kWarning;
    f.host = MakeHostRange(offset, g.cluster_size);
    f.detail = fmt::format("{} of {} entries", appraised.reclaims, appraised.entries);
    if (found++ == 0) {
      first = std::move(f);
      return true;
    }
    if (first) out->Add(*std::exchange(first, std::nullopt));
    out->Add(std::move(f));
    return true;
  };
  ForEachOrphan(state, look, kMaxLeaksGlancedAt);
  if (!first) return;
  // One table without a place, and one place without a table.
  if (auto column = OnlyEmptyColumn(image)) {
    const uint64_t begin = *column * g.l2_span;
    first->layer = image.LayerName(0);
    first->guest = MakeGuestRange(begin, std::min(g.l2_span, image.header.size - begin));
  }
  out->Add(*std::move(first));
}

// A further snapshot entry behind the last one, whose L1 table is counted but used by nobody.
void JudgeUndercount(const CheckState& state, Findings* out) {
  const Image& image = *state.image;
  const SnapshotTable& table = image.snapshots;
  if (table.offset == 0 || table.stop != SnapshotTable::Stop::kNone ||
      !IsAligned(table.offset, image.geometry.cluster_size)) {
    return;
  }
  auto entry = ParseSnapshotAt(*image.source, AlignUp(table.end, 8));
  if (!entry || entry->id.empty() || entry->l1_table_offset == 0 || entry->l1_size == 0 ||
      !IsAligned(entry->l1_table_offset, image.geometry.cluster_size) ||
      entry->l1_table_offset >= image.file_size) {
    return;
  }
  uint64_t cluster = entry->l1_table_offset >> image.geometry.cluster_bits;
  if (StoredCount(image, cluster) == 0 || state.claims().IsUsed(cluster)) return;
  Finding f;
  f.problem = Problem::kQcow2SnapUndercount;
  f.layer = ValidUtf8(entry->id);
  f.structure = "header";
  f.host = MakeHostRange(60, 4);
  f.detail = fmt::format("{} listed, then comes id {} \"{}\"", image.header.nb_snapshots,
                         Printable(entry->id), Printable(entry->name));
  out->Add(std::move(f));
}

}  // namespace

uint64_t StoredCount(const Image& image, uint64_t cluster) {
  const Geometry& g = image.geometry;
  uint64_t offset = BlockOffset(image, cluster / g.block_entries);
  if (offset == 0) return 0;
  uint64_t index = cluster % g.block_entries;
  uint64_t byte =
      g.refcount_order >= 3 ? index << (g.refcount_order - 3) : index >> (3 - g.refcount_order);
  uint64_t aligned = AlignDown(byte, 8);
  uint8_t word[8];
  std::vector<HostRange> bad;
  ReadTolerant(*image.source, offset + aligned, word, &bad);
  uint64_t first = (aligned * 8) >> g.refcount_order;
  return LoadRefcount(word, g.refcount_order, index - first);
}

void JudgeHidden(const CheckState& state, Findings* out) {
  JudgeUndercount(state, out);
  if (state.leaks.empty()) return;
  JudgeEmptyTables(state, out);
  std::set<uint64_t> listed;
  JudgeOrphanL1(state, &listed, out);
  if (!state.image->has_data_file()) JudgeOrphanL2(state, listed, out);
}

}  // namespace imgfsck::qcow2
