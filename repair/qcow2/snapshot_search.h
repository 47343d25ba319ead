// SPDX-License-Identifier: Apache-2.0
// Snapshot tables that cannot be read as they stand: entries are read again past a damaged length,
// a table that the header no longer leads to is looked for among the clusters that are counted and
// that nothing refers to.
#pragma once

#include <optional>
#include <vector>

#include "analyzers/qcow2/state.h"

namespace imgfsck::qcow2 {

struct FoundSnapshots {
  uint64_t offset = 0;  // of the table in the file
  uint64_t end = 0;     // of its last entry
  std::vector<Snapshot> entries;
  bool as_stored = true;  // no length had to be put right
};

class SnapshotSearch {
 public:
  SnapshotSearch(const ByteSource& bytes, const CheckState& state)
      : bytes_(bytes), state_(state), image_(*state.image) {}

  // The entries at `offset`, at most `count`, as far as they make sense.
  FoundSnapshots Read(uint64_t offset, uint64_t count) const;
  // The one table of `count` entries (of any number, where the count is absurd): at `hint`, rounded
  // down, or in a cluster that nothing refers to. Its snapshots' tables must be unreferenced too.
  std::optional<FoundSnapshots> Find(uint64_t hint, uint64_t count) const;

 private:
  bool MakesSense(const Snapshot& snapshot) const;
  std::optional<Snapshot> EntryAt(uint64_t offset, bool last, bool* as_stored) const;
  std::optional<FoundSnapshots> TableAt(uint64_t offset, uint64_t count) const;

  const ByteSource& bytes_;
  const CheckState& state_;
  const Image& image_;
};

}  // namespace imgfsck::qcow2
