// SPDX-License-Identifier: Apache-2.0
// Which L2 tables of an image are lost, and which of the tables found by a scan each of them may
// once have been. An assignment says what speaks for it; where nothing does, none is made.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "repair/qcow2/donor.h"
#include "repair/qcow2/table_scan.h"

namespace imgfsck::qcow2 {

struct LostTable {
  enum class Why {
    kEmpty,    // the table holds zeros
    kNoTable,  // what is there is no L2 table
    kPointer,  // the L1 entry leads nowhere, or to the table of another range
    kUnset,    // the L1 entry is zero: nothing may ever have been there
  } why = Why::kEmpty;
  TableRef ref;           // offset 0 for kPointer and kUnset
  uint64_t l1_value = 0;  // as stored; of kPointer
  // Another column of the active disk that leads to the same table, and rightly.
  std::optional<uint64_t> rightful;
  // Tables found, the most convincing first; `why_found` says why, in words, and how far to trust.
  std::vector<uint64_t> found;
  std::string evidence;
  double confidence = 0;
  // Of kNoTable: no entry of what is there leads to a cluster that misses a reference. The bytes
  // are somebody else's, and may be the only copy.
  bool foreign = false;
};

// Lost tables of all layers that a walk met, and lost L1 entries of the active disk. With `unset`
// also zero L1 entries of the active disk (at most kMaxUnset).
std::vector<LostTable> FindLostTables(const ByteSource& image, const CheckState& state, bool unset);
inline constexpr size_t kMaxUnset = 1 << 14;

// Gives `lost` the tables in `scan` that belong to them.
void AssignTables(const ByteSource& image, const CheckState& state, const ScannedTables& scan,
                  std::vector<LostTable>* lost);

// The tables of other layers that map the same range as `ref` does, or should.
std::vector<TableRef> OtherTables(const CheckState& state, const TableRef& ref);

// Clusters of metadata that is no L2 table, by what the header, snapshots and bitmaps say; empty
// when no cluster is claimed twice.
std::unordered_set<uint64_t> OtherMetadata(const CheckState& state);

// Two columns of the active disk lead to one L2 table: which of them is in the wrong, when its
// neighbours tell, other layers, the donor, or the only table found. Adds that one to *lost, as
// kPointer.
void FindMisled(const ByteSource& image, const CheckState& state, const Donor& donor,
                const ScannedTables& scan, std::vector<LostTable>* lost);

// Where entry `index` of column `column` of `layer` leads to; nothing for all but plain data.
std::optional<uint64_t> HostAt(const ByteSource& image, const Image& parsed, size_t layer,
                               uint64_t column, uint64_t index);

}  // namespace imgfsck::qcow2
