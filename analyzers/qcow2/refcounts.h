// SPDX-License-Identifier: Apache-2.0
// Stored reference counts against the references found. Blocks are compared as runs; a block whose
// clusters are all used once, or not at all, costs a few instructions per 64 clusters.
#pragma once

#include <functional>
#include <vector>

#include "analyzers/check.h"
#include "analyzers/qcow2/claims.h"
#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

// Reads one count of a refcount block (sheet, section 3).
uint64_t LoadRefcount(Bytes block, unsigned order, uint64_t index);
// False when the value does not fit the width.
bool StoreRefcount(MutableBytes block, unsigned order, uint64_t index, uint64_t value);

// The offset of refcount block `index`, when its table entry is usable; 0 otherwise.
uint64_t BlockOffset(const Image& image, uint64_t index);

// The blocks, ascending, whose counts mean something: those for the file's clusters, and each other
// block once. A table may name one block for all that lies behind the file.
std::vector<uint64_t> BlocksToCompare(const Image& image, uint64_t clusters);

// Most of the clusters that block `index` speaks for, and that are used without a conflict, are
// counted in it as they should be. Guest data in a block's place is not like that.
bool HoldsCounts(const Image& image, const ClaimMap& claims, uint64_t index);

// A run of clusters whose stored counts differ from the computed ones in the same way.
struct CountRun {
  uint64_t cluster = 0, length = 0;  // clusters
  uint64_t stored = 0, computed = 0;
  bool past_eof = false;
};
using CountRunVisitor = std::function<void(const CountRun&)>;

struct CompareResult {
  uint64_t highest_cluster = 0;  // the last one with a count or a reference, plus 1
  std::vector<HostRange> unreadable;
};

// Calls visit for every differing run, ascending, from one thread.
Status CompareRefcounts(const Image& image, const ClaimMap& claims, unsigned threads,
                        const ProgressFn& progress, const CountRunVisitor& visit,
                        CompareResult* result);

// Every run, equal ones included, of clusters [begin, end): for the SQL table.
std::unique_ptr<RowCursor<RefcountRow>> RefcountRows(std::shared_ptr<const Image> image,
                                                     std::shared_ptr<const ClaimMap> claims,
                                                     const RowQuery& query);

}  // namespace imgfsck::qcow2
