// SPDX-License-Identifier: Apache-2.0
// Gives every claimant of shared bytes its own copy of them, as they read before. All copies are
// made before the first entry changes, so that no copy sees what another one did. Encrypted
// clusters are copied as they are: their vectors follow the guest offset, which stays.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/interrupt.h"
#include "base/text.h"
#include "repair/qcow1/editor.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

struct Change {
  uint64_t host_offset;  // of the entry
  Entry entry;
};

class Split {
 public:
  explicit Split(const PassContext& context) : editor_(context) {}

  Result<PassOutcome> Run() {
    if (Need() == 0) return editor_.Finish();
    uint64_t limit = editor_.options().max_copy;
    if (Need() > limit) {
      editor_.Note(
          fmt::format("separating shared clusters needs {}, more than the limit of {} "
                      "(--max-copy)",
                      HumanSize(Need()), HumanSize(limit)));
      return editor_.Finish();
    }
    if (!editor_.CanAppend(Need())) {
      if (!editor_.Mends(Problem::kQcowL2EntryPastEof)) {
        editor_.Note("clusters that lie behind the end of the file are in the way of copies");
      }
      return editor_.Finish();
    }
    std::vector<Change> changes;
    for (const Claim& claim : movers_) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(Entry entry, EntryFor(claim));
      IMG_ASSIGN_OR_RETURN(entry, Copy(entry));
      changes.push_back({EntryOffset(claim), entry});
    }
    IMG_RETURN_IF_ERROR(CopySharedTables());
    for (const Change& change : changes) {
      IMG_RETURN_IF_ERROR(editor_.SetEntry(change.host_offset, change.entry));
    }
    for (auto [index, table] : new_tables_) IMG_RETURN_IF_ERROR(editor_.SetL1(index, table));
    return editor_.Finish();
  }

  // Chooses what moves; bytes that it will take.
  Status Plan() {
    bool tables = editor_.Mends(Problem::kQcowDataOnMetadata);
    bool data = editor_.Mends(Problem::kQcowDataCrosslink);
    bool streams = editor_.Mends(Problem::kQcowComprOverlap);
    uint64_t table_end = 0, stay_end = 0;
    const auto& conflicts = editor_.state().conflicts;
    std::vector<uint64_t> next_table(conflicts.size() + 1, UINT64_MAX);  // where one begins, from i
    for (size_t i = conflicts.size(); i-- > 0;) {
      next_table[i] = conflicts[i].metadata() ? conflicts[i].begin : next_table[i + 1];
    }
    FindTornTables();
    for (size_t i = 0; i < conflicts.size(); ++i) {
      const Claim& claim = conflicts[i];
      if (!claim.metadata() && torn_.contains(SlotOf(claim).value)) continue;
      if (claim.metadata()) {
        table_end = std::max(table_end, claim.end);
        continue;
      }
      if (claim.begin >= claim.end) continue;
      bool stream = claim.kind == ClaimKind::kCompressed;
      bool on_table = claim.begin < table_end || next_table[i] < claim.end;
      bool on_data = claim.begin < stay_end;
      bool move = (on_table && (stream ? streams : tables)) ||
                  (on_data && (stream ? streams : data || streams));
      if (move) {
        movers_.push_back(claim);
        need_ += AlignUp(claim.end - claim.begin, stream ? kSector : g().cluster_size);
      } else {
        stay_end = std::max(stay_end, claim.end);
      }
    }
    return editor_.Mends(Problem::kQcowL1EntryDuplicate) ? PlanSharedTables() : Ok();
  }

 private:
  const Image& image() const { return editor_.image(); }
  const Geometry& g() const { return image().geometry; }
  uint64_t Need() const { return need_; }

  // Tables over another structure of the image: what reads as their entries is that structure's,
  // and to write one would destroy it. Two L1 entries on one whole table are no such case.
  void FindTornTables() {
    const Claim* last = nullptr;  // of the metadata so far, the one that ends last
    for (const Claim& claim : editor_.state().conflicts) {
      if (!claim.metadata()) continue;
      bool same = last != nullptr && claim.begin == last->begin && claim.kind == last->kind;
      if (last != nullptr && claim.begin < last->end && !same) {
        for (const Claim* torn : {last, &claim}) {
          if (torn->kind == ClaimKind::kL2) torn_.insert(torn->begin);
        }
      }
      if (last == nullptr || claim.end > last->end) last = &claim;
    }
  }

  const L1Slot& SlotOf(const Claim& claim) const {
    uint64_t index = claim.guest / g().span;
    return *std::lower_bound(image().l1.begin(), image().l1.end(), index,
                             [](const L1Slot& s, uint64_t i) { return s.index < i; });
  }
  uint64_t EntryOffset(const Claim& claim) const {
    return SlotOf(claim).value + 8 * (claim.guest / g().cluster_size % g().l2_entries);
  }
  Result<Entry> EntryFor(const Claim& claim) {
    uint8_t bytes[8];
    IMG_RETURN_IF_ERROR(ReadPadded(editor_.bytes(), EntryOffset(claim), bytes));
    return Entry{LoadBe<uint64_t>(bytes)};
  }

  // The entry for a copy of what `entry` points to.
  Result<Entry> Copy(Entry entry) {
    uint64_t length = entry.length(g());
    uint64_t alignment = entry.compressed() ? kSector : g().cluster_size;
    IMG_ASSIGN_OR_RETURN(uint64_t at, editor_.AppendCopy(entry.offset(g()), length, alignment));
    if (!entry.compressed()) return Entry{at};
    if (SaturatingAdd(at, length) > CompressedLimit(g())) {
      return Error{ErrorCode::kTooLarge, "a compressed cluster cannot lie that far", at};
    }
    return Entry::Compressed(g(), at, length);
  }

  bool Copyable(Entry entry) const {
    return !entry.empty() && !CheckEntry(image(), entry).damaged();
  }

  Status PlanSharedTables() {
    std::vector<uint64_t> entries;
    std::vector<HostRange> bad;
    for (size_t slot = 0; slot < editor_.state().fates.size(); ++slot) {
      if (editor_.state().fates[slot] != TableFate::kShared) continue;
      IMG_RETURN_IF_ERROR(CheckStop());
      ReadL2(image(), image().l1[slot].value, &entries, &bad);
      need_ = SaturatingAdd(need_, AlignUp(g().l2_bytes, g().cluster_size));
      for (uint64_t raw : entries) {
        if (Copyable(Entry{raw})) need_ = SaturatingAdd(need_, g().cluster_size);
      }
      shared_.push_back(slot);
      if (need_ > editor_.options().max_copy) return Ok();
    }
    return Ok();
  }

  Status CopySharedTables() {
    std::vector<uint64_t> entries;
    std::vector<HostRange> bad;
    for (size_t slot : shared_) {
      IMG_RETURN_IF_ERROR(CheckStop());
      ReadL2(image(), image().l1[slot].value, &entries, &bad);
      ByteVector table(g().l2_bytes);
      for (uint64_t i = 0; i < entries.size(); ++i) {
        Entry entry{entries[i]};
        if (Copyable(entry)) {
          IMG_ASSIGN_OR_RETURN(entry, Copy(entry));
        }
        PutBe(table, 8 * i, entry.raw);
      }
      IMG_ASSIGN_OR_RETURN(uint64_t at, editor_.Append(table, g().cluster_size));
      new_tables_.push_back({image().l1[slot].index, at});
    }
    return Ok();
  }

  Editor editor_;
  std::vector<Claim> movers_;
  std::set<uint64_t> torn_;  // L2 tables, by host offset
  std::vector<size_t> shared_;
  std::vector<std::pair<uint64_t, uint64_t>> new_tables_;
  uint64_t need_ = 0;
};

}  // namespace

Result<PassOutcome> RepairConflicts(const PassContext& context) {
  Split split(context);
  IMG_RETURN_IF_ERROR(split.Plan());
  return split.Run();
}

}  // namespace imgfsck::qcow1
