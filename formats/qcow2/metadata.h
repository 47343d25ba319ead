// SPDX-License-Identifier: Apache-2.0
// Every metadata region that an image names, L2 tables excepted (columns.h). The one place that
// says which clusters belong to which structure.
#pragma once

#include <functional>
#include <string>

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

enum class MetaKind : uint8_t {
  kHeader,
  kL1,
  kRefcountTable,
  kRefcountBlock,
  kSnapshotTable,
  kSnapshotL1,
  kLuks,
  kBitmapDirectory,
  kBitmapTable,
  kBitmapData,
  kL2
};
std::string_view KindName(MetaKind kind);  // the SQL model's words: "refcount-block" …

struct MetaRegion {
  MetaKind kind{};
  HostRange host;      // bytes used; may end inside a cluster
  uint64_t index = 0;  // refcount block, snapshot or bitmap number; table entry of bitmap data
  uint64_t owner = 0;  // bitmap number of bitmap data

  std::string Structure() const;  // "refcount-block[3]", "snapshot[0]/l1", "bitmap[1]/data[7]"
};

// Calls visit for each region that begins inside the file, cut where it leaves it. Regions whose
// reference is damaged (not aligned, past the end) are left out.
void ForEachMeta(const Image& image, const std::function<void(const MetaRegion&)>& visit);

// The bitmap's table, entries in host order; empty when it cannot be read as one.
std::vector<uint64_t> LoadBitmapTable(const Image& image, const Bitmap& bitmap);

}  // namespace imgfsck::qcow2
