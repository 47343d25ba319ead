// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/lost_tables.h"

#include <algorithm>
#include <bit>
#include <set>
#include <tuple>

#include "analyzers/qcow2/entry_rules.h"
#include "formats/common/tolerant.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {
namespace {

uint64_t L1Value(const ByteSource& image, const L1Location& l1, uint64_t column) {
  uint8_t raw[8];
  std::vector<HostRange> bad;
  if (column >= l1.entries) return 0;
  ReadTolerant(image, l1.offset + 8 * column, raw, &bad);
  return LoadBe<uint64_t>(raw);
}

// Lowest and highest cluster that a live table maps, in bytes; nothing when its order says nothing.
struct Span {
  uint64_t first = 0, last = 0;
};
std::optional<Span> SpanOf(const ByteSource& image, const Image& parsed, uint64_t table) {
  const Geometry& g = parsed.geometry;
  ByteVector bytes(g.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(image, table, bytes, &bad);
  if (!bad.empty() || Implausible(parsed, bytes)) return std::nullopt;
  Span span;
  uint64_t used = 0, up = 0, previous = 0;
  for (uint64_t i = 0; i < g.l2_entries; ++i) {
    EntryClaim claim = ClaimOf(parsed, LoadEntry(g, bytes, i));
    if (claim.kind == EntryClaim::Kind::kNone) continue;
    uint64_t host = claim.first << g.cluster_bits;
    up += host >= previous;
    previous = host;
    span.first = used == 0 ? host : std::min(span.first, host);
    span.last = std::max(span.last, host);
    ++used;
  }
  if (used == 0 || up * 10 < used * 9) return std::nullopt;
  return span;
}

// The host range in which the clusters of a column lie, if the image was filled in guest order.
class Windows {
 public:
  Windows(const ByteSource& image, const CheckState& state, const std::vector<LostTable>& lost)
      : image_(image), parsed_(*state.image), l1_(state.image->active.bytes()) {
    std::vector<HostRange> bad;
    ReadTolerant(image, parsed_.active.offset, l1_, &bad);
    for (const LostTable& l : lost) {
      if (l.ref.active) lost_.insert(l.ref.column);
    }
  }

  struct Window {
    uint64_t begin = 0, end = ~uint64_t{0};
    bool anchored = false;  // there is a neighbour that says so
  };
  // Nothing when the neighbours are not in order.
  std::optional<Window> Of(uint64_t column) {
    Window window;
    constexpr uint64_t kFarthest = 4096;  // columns looked at on each side
    for (uint64_t c = column, n = 0; c-- > 0 && n < kFarthest; ++n) {
      std::optional<Span> span;
      if (!Live(c, &span)) continue;
      if (!span) return std::nullopt;
      window.begin = span->last;
      window.anchored = true;
      break;
    }
    for (uint64_t c = column + 1, n = 0; c < parsed_.active.entries && n < kFarthest; ++c, ++n) {
      std::optional<Span> span;
      if (!Live(c, &span)) continue;
      if (!span) return std::nullopt;
      window.end = span->first;
      window.anchored = true;
      break;
    }
    if (window.begin >= window.end) return std::nullopt;
    return window;
  }

 private:
  bool Live(uint64_t column, std::optional<Span>* span) {
    uint64_t offset = LoadBe<uint64_t>(&l1_[8 * column]) & kOffsetMask;
    if (offset == 0 || lost_.contains(column)) return false;
    auto known = spans_.find(offset);
    if (known == spans_.end()) {
      known = spans_.emplace(offset, SpanOf(image_, parsed_, offset)).first;
    }
    *span = known->second;
    return true;
  }

  const ByteSource& image_;
  const Image& parsed_;
  ByteVector l1_;
  std::set<uint64_t> lost_;
  std::map<uint64_t, std::optional<Span>> spans_;  // by table
};

// Half of what both the table and another layer's table of `ref`'s range map is the same.
bool ResemblesOthers(const ByteSource& image, const CheckState& state, const TableRef& ref,
                     uint64_t table) {
  const Image& parsed = *state.image;
  if (parsed.LayerCount() == 1) return false;
  const Geometry& g = parsed.geometry;
  ByteVector mine(g.cluster_size), theirs(g.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(image, table, mine, &bad);
  for (const TableRef& other : OtherTables(state, ref)) {
    if (other.offset == table) return true;
    ReadTolerant(image, other.offset, theirs, &bad);
    uint64_t same = 0, used = 0;
    for (uint64_t i = 0; i < g.l2_entries; ++i) {
      Entry a = LoadEntry(g, mine, i), b = LoadEntry(g, theirs, i);
      if (a.empty() || b.empty()) continue;
      ++used;
      same += (a.descriptor & ~kCopied) == (b.descriptor & ~kCopied);
    }
    if (same > 0 && same * 2 >= used) return true;
  }
  return false;
}

class Assigner {
 public:
  Assigner(const ByteSource& image, const CheckState& state, const ScannedTables& scan,
           std::vector<LostTable>* lost)
      : image_(image),
        state_(state),
        parsed_(*state.image),
        scan_(scan),
        lost_(*lost),
        windows_(image, state, *lost) {
    for (const auto& [offset, table] : scan.tables) tables_.push_back(&table);
    for (size_t l = 0; l < lost_.size(); ++l) {
      if (lost_[l].why != LostTable::Why::kUnset) ++known_lost_;
    }
  }

  void Run() {
    ByStrongEvidence();
    OnlyOne();
    ByPlace();
    OnlyChoice();
    for (LostTable& l : lost_) {
      std::ranges::stable_sort(
          l.found, [&](uint64_t a, uint64_t b) { return Table(a).reclaims > Table(b).reclaims; });
    }
  }

 private:
  const FoundTable& Table(uint64_t offset) const { return scan_.tables.at(offset); }
  void Give(LostTable& lost, const FoundTable& table, double confidence, std::string_view why) {
    if (lost.found.empty()) {
      lost.confidence = confidence;
      lost.evidence = why;
    }
    lost.found.push_back(table.offset);
    given_.insert(table.offset);
  }

  // An L1 table found lists it in that place; the damaged L1 entry differs from its offset in one
  // or two bits; or a snapshot's table agrees with it.
  void ByStrongEvidence() {
    std::map<uint64_t, size_t> by_column;
    std::vector<size_t> pointers;
    for (size_t l = 0; l < lost_.size(); ++l) {
      if (lost_[l].ref.active) by_column.emplace(lost_[l].ref.column, l);
      if (lost_[l].why == LostTable::Why::kPointer) pointers.push_back(l);
    }
    constexpr size_t kMostComparisons = 1 << 16;
    bool compare = parsed_.LayerCount() > 1 && tables_.size() * lost_.size() <= kMostComparisons;
    for (const FoundTable* table : tables_) {
      auto listed = by_column.end();
      for (uint64_t slot : table->slots) {
        if (listed == by_column.end()) listed = by_column.find(slot);
      }
      auto flipped = std::ranges::find_if(pointers, [&](size_t l) {
        return std::popcount((lost_[l].l1_value & kOffsetMask) ^ table->offset) <= 2;
      });
      if (listed != by_column.end()) {
        Give(lost_[listed->second], *table, 0.95, "an older table of tables lists it here");
      } else if (flipped != pointers.end()) {
        Give(lost_[*flipped], *table, 0.95,
             "the damaged reference differs from its place in a bit or two");
      } else if (compare) {
        auto kin = std::ranges::find_if(lost_, [&](const LostTable& l) { return Kin(l, *table); });
        if (kin != lost_.end()) {
          Give(*kin, *table, 0.95, "it agrees with another layer's table of this range");
        }
      }
    }
  }

  bool Kin(const LostTable& lost, const FoundTable& table) const {
    return ResemblesOthers(image_, state_, lost.ref, table.offset);
  }

  // A table of a bitmap looks like one of the guest's but for its flags; so does a snapshot's.
  static bool Stranger(const LostTable& lost, const FoundTable& table) {
    return table.bare && lost.ref.active && lost.ref.weight == 1;
  }

  // One table is missing, and what is found can only be that.
  void OnlyOne() {
    if (known_lost_ != 1) return;
    for (LostTable& lost : lost_) {
      if (lost.why == LostTable::Why::kUnset) continue;
      for (const FoundTable* table : tables_) {
        if (!given_.contains(table->offset) && !Stranger(lost, *table)) {
          Give(lost, *table, 0.8, "it is the only range whose table is lost");
        }
      }
    }
  }

  // One table found that is counted, one range without a table.
  void OnlyChoice() {
    std::vector<LostTable*> ranges;
    for (LostTable& lost : lost_) {
      if (lost.found.empty() && lost.ref.active) ranges.push_back(&lost);
    }
    std::vector<const FoundTable*> left;
    for (const FoundTable* table : tables_) {
      if (table->counted && !table->bare && !given_.contains(table->offset)) left.push_back(table);
    }
    if (ranges.size() == 1 && left.size() == 1) {
      Give(*ranges[0], *left[0], 0.8,
           "it is the only range without a table, and the only table "
           "without a range");
    }
  }

  bool Fits(const Windows::Window& window, const FoundTable& table) const {
    return table.first_host > window.begin && table.last_host < window.end;
  }

  // The image was filled in guest order: a table belongs between its neighbours.
  void ByPlace() {
    std::vector<std::optional<Windows::Window>> windows;
    for (const LostTable& lost : lost_) {
      windows.push_back(lost.ref.active && lost.found.empty() ? windows_.Of(lost.ref.column)
                                                              : std::nullopt);
    }
    std::map<std::vector<size_t>, std::vector<const FoundTable*>> groups;
    for (const FoundTable* table : tables_) {
      if (given_.contains(table->offset) || !table->ordered || table->bare) continue;
      std::vector<size_t> fits;
      for (size_t l = 0; l < lost_.size(); ++l) {
        if (windows[l] && windows[l]->anchored && Fits(*windows[l], *table)) fits.push_back(l);
      }
      if (!fits.empty()) groups[fits].push_back(table);
    }
    for (auto& [fits, tables] : groups) GiveInOrder(fits, tables);
  }

  void GiveInOrder(const std::vector<size_t>& fits, std::vector<const FoundTable*>& tables) {
    if (fits.size() == 1) {
      for (const FoundTable* table : tables) {
        Give(lost_[fits[0]], *table, 0.8, "its clusters lie where those of this range belong");
      }
      return;
    }
    // As many tables as ranges, or nobody knows which range has none.
    std::erase_if(tables, [](const FoundTable* t) { return !t->counted; });
    if (tables.size() != fits.size()) return;
    std::ranges::sort(tables, {}, [](const FoundTable* t) { return t->first_host; });
    for (size_t i = 1; i < tables.size(); ++i) {
      if (tables[i - 1]->last_host >= tables[i]->first_host) return;
    }
    for (size_t i = 0; i < fits.size(); ++i) {  // ascending columns
      Give(lost_[fits[i]], *tables[i], 0.6, "the order of its clusters is that of the ranges");
    }
  }

  const ByteSource& image_;
  const CheckState& state_;
  const Image& parsed_;
  const ScannedTables& scan_;
  std::vector<LostTable>& lost_;
  Windows windows_;
  std::vector<const FoundTable*> tables_;
  std::set<uint64_t> given_;
  size_t known_lost_ = 0;
};

}  // namespace

std::vector<LostTable> FindLostTables(const ByteSource& image, const CheckState& state,
                                      bool unset) {
  const Image& parsed = *state.image;
  std::vector<LostTable> lost;
  for (const TableRef& ref : state.walk.empty_tables) {
    lost.push_back({LostTable::Why::kEmpty, ref, 0, {}, {}, {}, 0});
  }
  for (const TableRef& ref : state.walk.implausible) {
    lost.push_back({LostTable::Why::kNoTable, ref, 0, {}, {}, {}, 0});
  }
  const std::unordered_set<uint64_t> others = OtherMetadata(state);
  // A table that is something else's is no table: its L1 entry is wrong.
  std::erase_if(lost, [&](const LostTable& l) {
    return l.ref.active && others.contains(l.ref.offset >> parsed.geometry.cluster_bits);
  });
  const L1Location& l1 = parsed.active;
  ByteVector raw(l1.bytes());
  std::vector<HostRange> bad;
  ReadTolerant(image, l1.offset, raw, &bad);
  size_t unset_left = unset ? kMaxUnset : 0;
  for (uint64_t i = 0; i < std::min(l1.entries, parsed.L1Min(0)); ++i) {
    uint64_t value = LoadBe<uint64_t>(&raw[8 * i]), offset = value & kOffsetMask;
    TableRef ref{0, i, 0, 1, true, false};
    if (offset == 0 && !LostItsTable(value)) {
      if (unset_left == 0) continue;
      --unset_left;
      lost.push_back({LostTable::Why::kUnset, ref, value, {}, {}, {}, 0});
    } else if (offset == 0 || !IsAligned(offset, parsed.geometry.cluster_size) ||
               offset >= parsed.file_size ||
               others.contains(offset >> parsed.geometry.cluster_bits)) {
      lost.push_back({LostTable::Why::kPointer, ref, value, {}, {}, {}, 0});
    }
  }
  std::ranges::stable_sort(lost, [](const LostTable& a, const LostTable& b) {
    return std::tie(a.ref.column, a.ref.layer) < std::tie(b.ref.column, b.ref.layer);
  });
  return lost;
}

std::unordered_set<uint64_t> OtherMetadata(const CheckState& state) {
  std::unordered_set<uint64_t> clusters;
  if (!state.claims().AnyConflict()) return clusters;
  const unsigned bits = state.image->geometry.cluster_bits;
  ForEachMeta(*state.image, [&](const MetaRegion& region) {
    // Refcount blocks and bitmaps can be made anew: there the L2 table may well be in the right.
    if (region.kind == MetaKind::kL2 || region.kind == MetaKind::kBitmapData ||
        region.kind == MetaKind::kRefcountBlock) {
      return;
    }
    for (uint64_t c = region.host.offset.value >> bits; c <= (region.host.end() - 1) >> bits; ++c) {
      if (state.claims().IsConflict(c)) clusters.insert(c);
    }
  });
  return clusters;
}

std::vector<TableRef> OtherTables(const CheckState& state, const TableRef& ref) {
  std::vector<TableRef> tables;
  if (state.image->LayerCount() == 1) return tables;
  std::vector<HostRange> bad;
  state.columns->Read(ref.column, ref.column + 1, &tables, nullptr, &bad);
  std::erase_if(tables, [&](const TableRef& other) {
    bool own = ref.offset == 0 ? other.active && other.weight == 1 : other.offset == ref.offset;
    return own;
  });
  return tables;
}

void AssignTables(const ByteSource& image, const CheckState& state, const ScannedTables& scan,
                  std::vector<LostTable>* lost) {
  Assigner(image, state, scan, lost).Run();
}

void FindMisled(const ByteSource& image, const CheckState& state, const Donor& donor,
                const ScannedTables& scan, std::vector<LostTable>* lost) {
  const Image& parsed = *state.image;
  // All columns of the active disk by table; only tables with two of them matter.
  std::map<uint64_t, std::vector<uint64_t>> columns;
  for (const TableRef& ref : state.walk.repeated) {
    if (ref.active) columns[ref.offset];
  }
  if (columns.empty()) return;
  for (uint64_t i = 0; i < parsed.active.entries; ++i) {
    auto found = columns.find(L1Value(image, parsed.active, i) & kOffsetMask);
    if (found != columns.end()) found->second.push_back(i);
  }
  for (const auto& [offset, users] : columns) {
    if (users.size() != 2) continue;
    // Both are out of the picture while the neighbours are asked.
    std::vector<LostTable> both = *lost;
    for (uint64_t column : users) {
      both.push_back({LostTable::Why::kPointer, {0, column, 0, 1, true, false}, 0, {}, {}, {}, 0});
    }
    Windows windows(image, state, both);
    std::optional<Span> own = SpanOf(image, parsed, offset);
    bool fits[2], kin[2];
    for (size_t k = 0; k < 2; ++k) {
      auto window = windows.Of(users[k]);
      fits[k] = own && window && window->anchored && own->first > window->begin &&
                own->last < window->end;
      kin[k] = donor.TableOffset(users[k]) == offset ||
               ResemblesOthers(image, state, {0, users[k], 0, 1, true, false}, offset);
    }
    if (kin[0] != kin[1]) std::ranges::copy(kin, fits);
    if (fits[0] && fits[1]) {
      // Side by side. The table that is missing lies before or behind this one.
      std::vector<const FoundTable*> missing;
      for (const auto& [found_offset, table] : scan.tables) {
        if (table.counted && table.ordered) missing.push_back(&table);
      }
      if (missing.size() != 1) continue;
      fits[0] = missing[0]->first_host > own->last;
      fits[1] = missing[0]->last_host < own->first;
    }
    if (fits[0] == fits[1]) continue;
    uint64_t wrong = users[fits[0] ? 1 : 0], right = users[fits[0] ? 0 : 1];
    lost->push_back(
        {LostTable::Why::kPointer, {0, wrong, 0, 1, true, false}, offset, right, {}, {}, 0});
  }
}

std::optional<uint64_t> HostAt(const ByteSource& image, const Image& parsed, size_t layer,
                               uint64_t column, uint64_t index) {
  const Geometry& g = parsed.geometry;
  uint64_t table = L1Value(image, parsed.L1Of(layer), column) & kOffsetMask;
  if (table == 0 || !IsAligned(table, g.cluster_size) || table >= parsed.file_size) {
    return std::nullopt;
  }
  ByteVector raw(g.l2_entry_size);
  std::vector<HostRange> bad;
  ReadTolerant(image, table + index * g.l2_entry_size, raw, &bad);
  Entry entry = LoadEntry(g, raw, 0);
  if (entry.compressed()) return std::nullopt;
  EntryClaim claim = ClaimOf(parsed, entry);
  if (claim.kind != EntryClaim::Kind::kCluster) return std::nullopt;
  return claim.first;
}

}  // namespace imgfsck::qcow2
