// SPDX-License-Identifier: Apache-2.0
// One pass over everything that the file stores, looking for what can only be metadata by its form:
// runs of table entries, and the starts of refcount tables, snapshot tables, bitmap directories and
// LUKS headers. The cluster size is not known yet, so everything is judged by sectors. What is
// found are candidates: guest data may look like anything.
#pragma once

#include <vector>

#include "analyzers/check.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

// What the 64 words of a sector may all be entries of; bits of a set.
enum SectorForm : uint8_t {
  kFormRefcountTable = 1,  // offsets, nothing else
  kFormL1 = 2,             // offsets, perhaps with COPIED
  kFormL2 = 4,             // also zero flags and compressed entries
  kFormExtendedL2 = 8,     // pairs of an entry and a bitmap
};

// The forms that all words of a sector fit and at least one uses; 0 for zeros and for other data.
uint8_t FormsOf(Bytes sector, uint64_t file_size);

// Neighbouring sectors of the same forms.
struct TableRun {
  uint64_t offset = 0;
  uint32_t sectors = 0;
  uint8_t forms = 0;
  uint64_t end() const { return offset + uint64_t{sectors} * kSector; }
};

struct ScanResult {
  std::vector<TableRun> runs;             // ascending
  std::vector<uint64_t> refcount_tables;  // offsets where each may begin, ascending
  std::vector<uint64_t> snapshot_tables, bitmap_directories, luks_headers;
  bool complete = true;  // false: there was more than is kept

  // The run that [offset, offset + length) touches first; null when it touches none.
  const TableRun* RunAt(uint64_t offset, uint64_t length) const;
};

Result<ScanResult> ScanForTables(const ByteSource& source, const ProgressFn& progress);

}  // namespace imgfsck::qcow2
