// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps whose list cannot be read as it stands: entries are read again past a damaged
// length; a lost directory, or the lost table of an entry, is looked for among the clusters that
// are counted once and that nothing refers to. Only what fits in every respect is believed.
#pragma once

#include <optional>
#include <vector>

#include "analyzers/qcow2/state.h"

namespace imgfsck::qcow2 {

struct BitmapList {
  uint64_t offset = 0;  // of the directory in the file
  uint64_t size = 0;    // bytes that the entries take there
  std::vector<Bitmap> entries;
  bool found = false;  // not where the header says: the bitmaps are not to be trusted
};

class BitmapSearch {
 public:
  BitmapSearch(const ByteSource& bytes, const CheckState& state);

  // The entries in the directory at `offset`, names without NUL and possibly empty. `size`: its
  // bytes; 0: not known. `count`: how many; 0: not known. Nothing when they do not add up.
  std::optional<BitmapList> Reread(uint64_t offset, uint64_t size, uint64_t count) const;
  // The one directory among the orphans, all of whose tables and data are orphans too.
  std::optional<BitmapList> FindDirectory(uint64_t count) const;
  // The one table among the orphans that can be this bitmap's.
  std::optional<uint64_t> FindTable(const Bitmap& bitmap) const;

  // The cluster at `offset` is counted once and nothing refers to it.
  bool IsOrphan(uint64_t offset) const;
  // A table of valid entries.
  bool IsSound(const std::vector<uint64_t>& table) const;
  // IsSound, and table and data are orphans.
  bool IsOrphanTable(const Bitmap& bitmap) const;

 private:
  unsigned Faults(Bytes entry) const;
  bool EndsHere(Bytes bytes, uint64_t at, bool size_known) const;
  std::optional<Bitmap> ReadEntry(Bytes bytes, uint64_t at, bool size_known) const;
  void ForEachOrphan(const std::function<bool(uint64_t offset)>& visit) const;

  const ByteSource& bytes_;
  const CheckState& state_;
  const Image& image_;
};

}  // namespace imgfsck::qcow2
