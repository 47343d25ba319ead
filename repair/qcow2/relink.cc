// SPDX-License-Identifier: Apache-2.0
// Puts mappings back that damage took: L2 tables that were zeroed, overwritten or lost their L1
// entry, and single entries that lead nowhere or to somebody else's cluster. Only clusters that
// miss a reference are linked, each with the evidence for its place; what matches nothing is left
// to lost+found. Because it changes what the guest reads, only --repair=all does this.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "analyzers/qcow2/conflicts.h"
#include "analyzers/qcow2/entry_rules.h"
#include "base/text.h"
#include "repair/qcow2/donor.h"
#include "repair/qcow2/passes.h"
#include "repair/qcow2/rebuilt_table.h"
#include "repair/qcow2/strays.h"
#include "repair/qcow2/superseded.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostSentences = 100;
constexpr uint64_t kMostJudged = 1 << 16;  // clusters whose content is looked at

class Relink : PassBody {
 public:
  explicit Relink(const PassContext& context)
      : PassBody(context), orphans_(state_), builder_(context.image, state_, &orphans_) {}

  Result<PassOutcome> Run() {
    IMG_ASSIGN_OR_RETURN(donor_, Donor::Open(context_.options.donor, image_));
    if (!donor_.why_not().empty()) outcome_.notes.push_back(donor_.why_not());
    IMG_RETURN_IF_ERROR(SetTablesApart());
    IMG_RETURN_IF_ERROR(RebuildTables());
    std::vector<Restored> restored;
    IMG_RETURN_IF_ERROR(
        RestoreEntries(context_.image, state_, donor_, loose_, &orphans_, &restored));
    for (const Restored& r : restored) {
      AddLayers(state_, r.table, r.index, &outcome_.changed);
      ++outcome_.changes;
      ++outcome_.orphans.relinked;
      Say(r.table, r.index, r.cluster, {r.confidence, std::string(r.evidence)});
    }
    Settle(restored);
    IMG_RETURN_IF_ERROR(SettleRivals(restored));
    SayLine();
    if (unsaid_ > 0) {
      outcome_.particulars.push_back(fmt::format("{} more guest ranges are mapped again", unsaid_));
    }
    return std::move(outcome_);
  }

 private:
  // What is right now. When no cluster of data is left without an owner, what maps nothing in a
  // table that came back never did.
  void Settle(const std::vector<Restored>& restored) {
    bool all = orphans_.DataIn(0, image_.ClusterCount(), 1).empty();
    for (const Restored& r : restored) AddLayers(state_, r.table, r.index, &outcome_.settled);
    for (const Installed& table : installed_) {
      for (uint64_t i = 0, end; i < g_.l2_entries; i = end) {
        for (end = i; end < g_.l2_entries && (all || table.known[end]); ++end) {
        }
        if (end > i)
          AddRange(table.layers, table.column * g_.l2_entries + i, end - i, &outcome_.settled);
        while (end < g_.l2_entries && !all && !table.known[end]) ++end;
      }
    }
  }

  // Of the claims on a cluster that entries gave up, the only one left is in the right.
  Status SettleRivals(const std::vector<Restored>& restored) {
    std::set<uint64_t> released;
    std::set<std::pair<uint64_t, uint64_t>> gone;  // table, entry
    for (const Restored& r : restored) {
      if (r.released == 0) continue;
      released.insert(r.released);
      gone.emplace(r.table.offset, r.index);
    }
    if (released.empty()) return Ok();
    ClaimList list;
    IMG_RETURN_IF_ERROR(CollectClaims(
        image_, *state_.columns, [&](uint64_t c) { return released.contains(c); }, &list));
    std::map<uint64_t, std::vector<const Claim*>> left;
    for (const Claim& claim : list.claims) {
      if (!gone.contains({claim.table.offset, claim.index})) left[claim.cluster].push_back(&claim);
    }
    for (const auto& [cluster, claims] : left) {
      const Claim& claim = *claims.front();
      if (claims.size() != 1 || claim.kind != Claim::Kind::kData || list.truncated) continue;
      AddLayers(state_, claim.table, claim.index, &outcome_.settled);
    }
    return Ok();
  }

  // Old tables are no guest data, and stand in nobody's gap.
  Status SetTablesApart() {
    OrphanJudge judge(context_.image, state_);
    for (uint64_t c : orphans_.DataIn(0, image_.ClusterCount(), kMostJudged)) {
      IMG_ASSIGN_OR_RETURN(auto content, judge.Judge(c));
      if (content == OrphanJudge::Content::kSuperseded) orphans_.MarkTable(c);
    }
    return Ok();
  }

  Status RebuildTables() {
    std::vector<LostTable> lost = FindLostTables(context_.image, state_, true);
    SetForeignApart(&lost);
    ScannedTables scan;
    IMG_RETURN_IF_ERROR(ScanForTables(context_.image, state_, orphans_, &scan));
    FindMisled(context_.image, state_, donor_, scan, &lost);
    for (const auto& [offset, table] : scan.tables) orphans_.MarkTable(offset >> g_.cluster_bits);
    std::vector<std::vector<TableSource>> lent = AskDonor(lost, &scan);
    AssignTables(context_.image, state_, scan, &lost);
    std::vector<RebuiltTable> tables = builder_.Build(lost, lent);
    for (size_t i = 0; i < lost.size(); ++i) {
      if (tables[i].reclaimed > 0) {
        IMG_RETURN_IF_ERROR(Install(lost[i], tables[i]));
      } else if (lost[i].foreign && orphans_.IsTaken(lost[i].ref.offset >> g_.cluster_bits)) {
        // Nothing is known of this table but that its cluster is another one's data.
        IMG_RETURN_IF_ERROR(Lead(lost[i], LayersOf(lost[i]), 0));
        Declare(lost[i], tables[i], LayersOf(lost[i]));
      }
    }
    loose_ = std::ranges::any_of(scan.tables, [&](const auto& found) {
      return !orphans_.IsTaken(found.first >> g_.cluster_bits);
    });
    return Ok();
  }

  // Finds the lost tables in whose place there is something else, and offers that to its owner.
  void SetForeignApart(std::vector<LostTable>* lost) {
    ByteVector bytes(g_.cluster_size);
    std::vector<HostRange> bad;
    for (LostTable& l : *lost) {
      if (l.why != LostTable::Why::kNoTable) continue;
      ReadTolerant(context_.image, l.ref.offset, bytes, &bad);
      l.foreign = true;
      for (uint64_t i = 0; i < g_.l2_entries && l.foreign; ++i) {
        const Entry entry = LoadEntry(g_, bytes, i);
        l.foreign = EntryInvalid(image_, entry) || !Reclaims(image_, orphans_, entry);
      }
    }
    for (const LostTable& l : *lost) {
      if (l.foreign) orphans_.Release(l.ref.offset >> g_.cluster_bits, l.ref.weight);
    }
  }

  // What the donor has of each lost table; a table found where the donor has one belongs there.
  std::vector<std::vector<TableSource>> AskDonor(const std::vector<LostTable>& lost,
                                                 ScannedTables* scan) const {
    std::vector<std::vector<TableSource>> lent;
    if (!donor_.usable()) return lent;
    for (const LostTable& l : lost) {
      lent.emplace_back();
      if (!l.ref.active) continue;
      auto found = scan->tables.find(donor_.TableOffset(l.ref.column));
      if (found != scan->tables.end()) found->second.slots.push_back(l.ref.column);
      if (auto bytes = donor_.Table(l.ref.column)) {
        lent.back().push_back({std::move(*bytes), 0.9, "the donor has it", false});
      }
    }
    return lent;
  }

  // The layers whose L1 leads to the table, or should.
  std::vector<uint32_t> LayersOf(const LostTable& lost) const {
    if (lost.ref.offset == 0) return {0};
    return state_.columns->LayersOf(lost.ref.column, lost.ref.offset);
  }

  Status Install(const LostTable& lost, const RebuiltTable& table) {
    ByteVector bytes(g_.cluster_size);
    for (uint64_t i = 0; i < g_.l2_entries; ++i) StoreEntry(g_, bytes, i, table.entries[i]);
    std::vector<uint32_t> layers = LayersOf(lost);
    bool own_place = lost.ref.offset != 0 && !lost.foreign &&
                     !state_.claims().IsConflict(lost.ref.offset >> g_.cluster_bits);
    uint64_t offset = lost.ref.offset;
    if (!own_place) {
      IMG_ASSIGN_OR_RETURN(offset, PlaceFor(lost, layers.size()));
    }
    IMG_RETURN_IF_ERROR(editor_.Write(offset, bytes));
    if (!own_place) IMG_RETURN_IF_ERROR(Lead(lost, layers, offset));
    outcome_.changes += table.reclaimed;
    outcome_.orphans.relinked += table.reclaimed;
    Declare(lost, table, layers);
    installed_.push_back({lost.ref.column, layers, table.known});
    if (lost.rightful) {
      AddRange({0}, *lost.rightful * g_.l2_entries, g_.l2_entries, &outcome_.settled);
    }
    Report(lost, table);
    return Ok();
  }

  // Leads the L1 entries of the column to the table at `offset`; 0: to none.
  Status Lead(const LostTable& lost, const std::vector<uint32_t>& layers, uint64_t offset) {
    for (uint32_t layer : layers) {
      const bool sole = offset != 0 && layer == 0 && layers.size() == 1;
      IMG_RETURN_IF_ERROR(editor_.Write64(image_.L1Of(layer).offset + 8 * lost.ref.column,
                                          offset | (sole ? kCopied : 0)));
    }
    return Ok();
  }

  // The table found is put to use again where it is; else a new one.
  Result<uint64_t> PlaceFor(const LostTable& lost, uint64_t layers) {
    for (uint64_t found : lost.found) {
      uint64_t cluster = found >> g_.cluster_bits;
      if (orphans_.Missing(cluster) < layers || !orphans_.Lone(cluster)) continue;
      orphans_.Take(cluster, layers);
      return found;
    }
    IMG_ASSIGN_OR_RETURN(uint64_t offset, editor_.Allocate());
    if (layers > 1) IMG_RETURN_IF_ERROR(editor_.SetCount(offset >> g_.cluster_bits, layers));
    return offset;
  }

  void AddRange(const std::vector<uint32_t>& layers, uint64_t first, uint64_t count,
                std::vector<LayerRange>* to) const {
    uint64_t begin = first << g_.cluster_bits;
    for (uint32_t layer : layers) {
      uint64_t size = std::max(image_.LayerSize(layer), begin + 1);
      uint64_t end = std::min(begin + (count << g_.cluster_bits), size);
      to->push_back({image_.LayerName(layer), MakeGuestRange(begin, end - begin)});
    }
  }

  // All of the column may read differently; what no evidence speaks of is lost, unless the table
  // was empty: then nothing could be read there before either.
  void Declare(const LostTable& lost, const RebuiltTable& table,
               const std::vector<uint32_t>& layers) {
    uint64_t first = lost.ref.column * g_.l2_entries;
    AddRange(layers, first, g_.l2_entries, &outcome_.changed);
    if (lost.why == LostTable::Why::kEmpty || lost.why == LostTable::Why::kUnset) return;
    uint64_t size = image_.LayerSize(lost.ref.layer), begin = first << g_.cluster_bits;
    uint64_t limit = begin < size ? std::min(g_.l2_entries, g_.ClustersOf(size - begin)) : 0;
    for (uint64_t i = 0, end; i < limit; i = end) {
      for (end = i; end < limit && !table.known[end]; ++end) {
      }
      if (end > i) AddRange(layers, first + i, end - i, &outcome_.lost);
      while (end < limit && table.known[end]) ++end;
    }
  }

  void Report(const LostTable& lost, const RebuiltTable& table) {
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      if (table.from[i] == 0) continue;
      Say(lost.ref, i, ClaimOf(image_, table.entries[i]).first, table.reasons[table.from[i] - 1]);
    }
  }

  // Entries of one table with one reason become one sentence.
  struct Line {
    uint64_t column = 0, first = 0, last = 0;     // entries
    uint64_t count = 0, lowest = 0, highest = 0;  // clusters
    uint32_t layer = 0;
    Provenance from;
  };
  void Say(const TableRef& table, uint64_t index, uint64_t cluster, const Provenance& from) {
    bool same = line_.count > 0 && line_.column == table.column && line_.layer == table.layer &&
                line_.from == from && index > line_.last;
    if (!same) {
      SayLine();
      line_ = {table.column, index, index, 0, cluster, cluster, table.layer, from};
    }
    line_.last = index;
    ++line_.count;
    line_.lowest = std::min(line_.lowest, cluster);
    line_.highest = std::max(line_.highest, cluster);
  }
  void SayLine() {
    if (line_.count == 0) return;
    uint64_t first = (line_.column * g_.l2_entries + line_.first) << g_.cluster_bits;
    uint64_t length = (line_.last - line_.first + 1) << g_.cluster_bits;
    std::string sentence = fmt::format(
        "guest {}-{}{}: {} cluster{} mapped again, at file offset {}{} (confidence {:.2f}: {})",
        Hex(first), Hex(first + length - 1),
        line_.layer == 0 ? "" : " of snapshot " + Printable(image_.LayerName(line_.layer)),
        line_.count, line_.count == 1 ? " is" : "s are", Hex(line_.lowest << g_.cluster_bits),
        line_.count == 1 ? "" : " to " + Hex(((line_.highest + 1) << g_.cluster_bits) - 1),
        line_.from.confidence, line_.from.evidence);
    line_ = {};
    if (outcome_.particulars.size() < kMostSentences) {
      outcome_.particulars.push_back(std::move(sentence));
    } else {
      ++unsaid_;
    }
  }

  Orphans orphans_;
  TableBuilder builder_;
  Donor donor_;
  struct Installed {
    uint64_t column = 0;
    std::vector<uint32_t> layers;
    std::vector<bool> known;
  };
  std::vector<Installed> installed_;
  bool loose_ = false;  // tables were found that belong nowhere
  Line line_;
  uint64_t unsaid_ = 0;
};

bool RelinkWanted(const CheckReport& report, const RepairOptions& options) {
  const CheckState& state = StateOf(report);
  bool links = options.orphans != OrphanPolicy::kKeep && options.orphans != OrphanPolicy::kFree;
  return options.mode == RepairMode::kAll && links && state.counts_compared &&
         !state.leaks.empty() && state.leaks_complete && !state.image->has_data_file();
}

constexpr Problem kRelinkMayAdd[] = {Problem::kQcow2RefcountLow, Problem::kQcow2RefcountLeak,
                                     Problem::kQcow2L2Copied, Problem::kQcow2L1Copied};

}  // namespace

const Pass kRelinkPass{"relink",
                       42,
                       "map clusters again that damage left without an owner",
                       RelinkWanted,
                       [](const PassContext& context) { return Relink(context).Run(); },
                       {},
                       kRelinkMayAdd};

}  // namespace imgfsck::qcow2
