// SPDX-License-Identifier: Apache-2.0
// A qcow2 image as parsed: everything but the L2 tables and refcount blocks, which are walked in
// streams (tables.h). Parsing never stops at damage and judges nothing; what could not be read is
// listed. Memory is bounded by the format's limits and by the file's length.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "formats/common/tolerant.h"
#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/luks.h"
#include "formats/qcow2/snapshots.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

// Where an L1 table lies and how much of it can be used.
struct L1Location {
  uint64_t offset = 0;
  uint64_t declared = 0;  // entries, as the header or the snapshot says
  uint64_t entries = 0;   // worth walking: what the disk needs where the declared number is absurd
  uint64_t bytes() const { return entries * 8; }
};

struct Image {
  const ByteSource* source = nullptr;
  uint64_t file_size = 0;    // bytes
  ByteVector first_cluster;  // as much as the file has (at most one cluster)
  Header header;
  bool walkable = false;          // magic, version and cluster_bits make sense
  Geometry geometry;              // only when walkable
  bool refcounts_usable = false;  // refcount_order makes sense
  ExtensionArea extensions;
  std::optional<std::string> backing_name, backing_format, data_file_name;
  L1Location active;
  SnapshotTable snapshots;
  std::vector<L1Location> snapshot_l1;   // one a snapshot, in table order
  std::vector<uint64_t> refcount_table;  // entries as stored; empty when it cannot be used
  std::optional<BitmapsExtension> bitmaps_extension;
  BitmapDirectory bitmaps;
  std::optional<EncryptionExtension> encryption;
  std::optional<LuksHeader> luks;
  std::vector<HostRange> unreadable;  // found while parsing

  bool extended_l2() const { return geometry.extended_l2; }
  bool has_data_file() const { return header.Incompatible(kIncompatDataFile); }
  uint64_t ClusterCount() const { return geometry.ClustersOf(file_size); }
  // Layers: 0 is the active disk, i the snapshot in place i - 1.
  size_t LayerCount() const { return 1 + snapshots.entries.size(); }
  const L1Location& L1Of(size_t layer) const {
    return layer == 0 ? active : snapshot_l1[layer - 1];
  }
  std::string LayerName(size_t layer) const;  // "active", the snapshot's id, or "#1" …
  uint64_t LayerSize(size_t layer) const;     // virtual size in bytes, VM state excluded
  uint64_t L1Min(size_t layer) const { return geometry.MinL1Entries(LayerSize(layer)); }
  std::string TableName(size_t layer, uint64_t l1_index) const;  // "l2[7]", "snapshot[1]/l2[7]"
};

// Fails only when not even the start of the file can be read.
Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source);

}  // namespace imgfsck::qcow2
