// SPDX-License-Identifier: Apache-2.0
// One worker of the L2 walk: validates and claims the entries of whole tables.
#pragma once

#include <span>
#include <vector>

#include "analyzers/qcow2/entry_groups.h"
#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/l2_walk.h"

namespace imgfsck::qcow2 {

// An entry of the active layer without COPIED, whose cluster nothing else in its column uses.
// Whether nothing elsewhere does is known at the end of the walk.
struct Unflagged {
  TableRef table;
  uint64_t index = 0, cluster = 0;
};

class TableWalker {
 public:
  static constexpr size_t kMostUnflagged = 1024;  // of one work item; more are findings at once
  // `groups` false: every entry on its own, for comparison.
  TableWalker(const Image& image, ClaimMap* claims, bool groups = true);

  // What the current work item found; the caller takes it and sets the next.
  Findings* findings = nullptr;
  std::vector<Unflagged>* unflagged = nullptr;  // null: each is a finding at once
  CheckCounts counts;
  uint64_t data_file_end = 0;
  std::vector<TableRef> empty_tables, implausible;
  StreamPlaces streams;

  // A table that alone maps its column.
  void WalkSingle(const TableRef& table, Bytes bytes);
  // Tables of one column, which may share entries: equal entries are one claim.
  void WalkColumn(std::span<const TableRef> tables, std::span<const Bytes> bytes);

 private:
  // Tables that share a column.
  struct Column {
    std::span<const TableRef> tables;
    std::span<const Bytes> bytes;
    size_t representative;  // of them: the active layer's, if there is one
    uint64_t weight;        // of all together
  };

  bool ScanPlain(const uint8_t* entries, GroupScan* scan) const;
  uint64_t EntriesOf(const TableRef& table) const;
  bool FastGroup(const TableRef& table, const uint8_t* entries);
  void SlowEntry(const TableRef& table, Bytes bytes, uint64_t index);
  void ClaimStream(const Entry& entry, const EntryClaim& claim, uint64_t weight);
  void CountActive(const Entry& entry, const EntryClaim& claim);
  void JudgeCopied(const TableRef& table, uint64_t index, const EntryClaim& claim, uint64_t weight);
  bool Prepare(const TableRef& table, Bytes bytes);
  bool FastShared(const Column& column, uint64_t begin);
  void ClaimGroup(const GroupScan& scan, uint64_t weight);
  void CountActiveGroup(const GroupScan& scan);
  // `counted`: the active layer's entry has been counted already.
  void WalkColumnIndex(std::span<const TableRef> tables, std::span<const Bytes> bytes,
                       uint64_t index, bool counted);

  template <class Less>
  void SortDistinct(Less less);

  const Image& image_;
  const Geometry& g_;
  ClaimMap* claims_;
  uint64_t bad_mask_;  // bits that keep an entry off the fast path
  bool fast_possible_;
  uint64_t shortest_stream_;
  uint64_t full_clusters_;  // clusters that lie wholly inside the file
  uint64_t next_contiguous_ = 0;
  struct Distinct {
    Entry entry;
    uint64_t weight;
    size_t first;  // of `tables`
    bool active;
  };
  std::vector<Distinct> distinct_;
};

}  // namespace imgfsck::qcow2
