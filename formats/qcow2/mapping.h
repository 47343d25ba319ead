// SPDX-License-Identifier: Apache-2.0
// The guest-to-host map of a qcow2 image as a stream of merged extents, one L2 table at a time.
// Damaged tables and entries show as what QEMU would read, with a flag.
#pragma once

#include <memory>

#include "formats/qcow2/entry.h"
#include "formats/qcow2/image.h"
#include "model/rows.h"

namespace imgfsck::qcow2 {

// A stream over the layers that the query names; `layer_names` outlives it and has one name a
// layer.
std::unique_ptr<RowCursor<MappingRow>> MakeMappingCursor(
    const Image& image, const std::vector<std::string>& layer_names, const RowQuery& query);

// A stretch of one layer's L1 entries.
class L1Window {
 public:
  L1Window(const Image& image, size_t layer) : image_(image), l1_(image.L1Of(layer)) {}
  // Entry `index` as stored; 0 past the table. Reads ahead in windows.
  uint64_t At(uint64_t index);

 private:
  static constexpr uint64_t kWindow = 8192;  // entries
  const Image& image_;
  L1Location l1_;
  uint64_t begin_ = 0;
  std::vector<uint64_t> entries_;
};

// The table's offset when the entry leads to one that begins inside the file; 0 otherwise.
uint64_t TableOffset(const Image& image, uint64_t l1_entry);

}  // namespace imgfsck::qcow2
