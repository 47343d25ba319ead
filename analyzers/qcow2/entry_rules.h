// SPDX-License-Identifier: Apache-2.0
// What may be wrong with one L2 entry (sheet, section 16, rows 48 to 71, 109, 110, 139), and what
// it claims. The hot loop comes here only for entries that are not plainly in order.
#pragma once

#include "analyzers/qcow2/columns.h"
#include "formats/qcow2/entry.h"

namespace imgfsck::qcow2 {

// What an entry uses of the file, as far as it makes sense.
struct EntryClaim {
  enum class Kind : uint8_t { kNone, kCluster, kSpan } kind = Kind::kNone;
  uint64_t first = 0, last = 0;  // clusters
  bool copied = false;           // of data: the flag as stored
};

// Pure classification, no findings.
EntryClaim ClaimOf(const Image& image, const Entry& entry);

// Adds what is wrong with entry `index` of `table` to *findings.
void JudgeEntry(const Image& image, const TableRef& table, uint64_t index, const Entry& entry,
                Findings* findings);

// Damage that says "this is no L2 table": reserved bits, no alignment, past the end.
bool EntryInvalid(const Image& image, const Entry& entry);

// No read uses the offset, that of zeros or of a cluster none of whose subclusters is stored; and
// but for a bit or two it is one that somebody may have written. Where the entry is noise, its zero
// flag is, too: there may have been data.
bool OffsetIsIdle(const Image& image, const Entry& entry);

// What is wrong with a COPIED flag.
inline constexpr char kCopiedSet[] = "set, but snapshots share the cluster";
inline constexpr char kCopiedClear[] = "clear, but nothing shares it";

// A finding about entry `index`, with structure, layer, host and guest range filled in. In a table
// of snapshots only, the code becomes snap-l2-structure and the rule's own code its detail.
Finding EntryFinding(const Image& image, const TableRef& table, uint64_t index, Problem problem,
                     std::string detail = {});

}  // namespace imgfsck::qcow2
