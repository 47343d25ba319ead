// SPDX-License-Identifier: Apache-2.0
// Mends one persistent bitmap: the fields of its directory entry and its table.
#pragma once

#include <string>
#include <vector>

#include "repair/qcow2/bitmap_search.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {

class BitmapMender {
 public:
  BitmapMender(const PassContext& context, const BitmapSearch& search, Editor* editor,
               PassOutcome* outcome);

  // False: the bitmap cannot stay. `kept`: the bitmaps before it, for names.
  bool MendEntry(Bitmap* bitmap, const std::vector<Bitmap>& kept);
  // Entries of the table that cannot be right, and bits behind the disk's end.
  Status MendTable(Bitmap* bitmap);

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }
  bool HasToGo(const Bitmap& bitmap) const;
  void MendName(Bitmap* bitmap, const std::vector<Bitmap>& kept);
  bool FindTable(Bitmap* bitmap);
  uint64_t Mended(uint64_t value, Bitmap* bitmap) const;
  Status MendTail(const Bitmap& bitmap, const std::vector<uint64_t>& table);
  std::optional<uint64_t> NeededEntries(const Bitmap& bitmap) const;

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  const BitmapSearch& search_;
  Editor& editor_;
  PassOutcome& outcome_;
};

}  // namespace imgfsck::qcow2
