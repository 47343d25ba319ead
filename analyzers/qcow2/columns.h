// SPDX-License-Identifier: Apache-2.0
// The L1 tables of all layers read side by side. Column i is L1 entry i of every layer: the tables
// that map one guest range. Layers mostly share tables; each distinct one comes once, with the
// number of layers that use it, so that work follows the tables in the file and not the snapshots.
#pragma once

#include <vector>

#include "formats/qcow2/image.h"
#include "model/finding.h"

namespace imgfsck::qcow2 {

// One L2 table as column `column` has it.
struct TableRef {
  uint64_t offset = 0;  // of the table in the file; aligned, and it begins inside the file
  uint64_t column = 0;
  uint32_t layer = 0;   // the first that uses it
  uint32_t weight = 0;  // how many layers use it in this column
  bool active = false;  // the active layer is one of them
  bool copied = false;  // the active L1 entry's COPIED flag
};

// An L1 entry of noise: bits that must be clear, more than a flip sets, and no offset. Whatever
// table it led to, nobody reads it now.
bool LostItsTable(uint64_t l1_value);

class Columns {
 public:
  explicit Columns(const Image& image);

  uint64_t count() const { return count_; }
  // How many columns to ask for at once so that memory stays bounded.
  uint64_t ChunkSize() const { return chunk_; }
  // L1 tables that overlap one another so much that some were left out.
  bool truncated() const { return truncated_; }

  // Tables of columns [begin, end), by column and then by offset, into *tables (cleared first).
  // Entries that are no table references go to *findings, where given; unreadable parts of L1
  // tables to *bad.
  void Read(uint64_t begin, uint64_t end, std::vector<TableRef>* tables, Findings* findings,
            std::vector<HostRange>* bad) const;
  // The layers that use `table` in `column`, ascending.
  std::vector<uint32_t> LayersOf(uint64_t column, uint64_t table) const;

 private:
  struct Group {  // layers with the same L1 table
    L1Location l1;
    std::vector<uint32_t> layers;
  };
  void ReadGroup(const Group& group, uint64_t begin, uint64_t end, std::vector<TableRef>* tables,
                 Findings* findings, std::vector<HostRange>* bad) const;
  void ReportUnreadable(const Group& group, const std::vector<HostRange>& bad,
                        Findings* findings) const;
  void Judge(const Group& group, uint64_t column, uint64_t value, Findings* findings) const;

  const Image& image_;
  std::vector<Group> groups_;
  uint64_t count_ = 0, chunk_ = 0;
  bool truncated_ = false;
};

}  // namespace imgfsck::qcow2
