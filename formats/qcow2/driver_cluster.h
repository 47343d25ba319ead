// SPDX-License-Identifier: Apache-2.0
// What an L2 entry says of its guest cluster, in one shape for standard and extended entries
// (sheet, sections 4 and 6). A cluster has 1 or 32 units; each is unallocated, zero or data.
// Strict: an entry that QEMU would not read is an error.
#pragma once

#include "base/result.h"
#include "formats/qcow2/entry.h"

namespace imgfsck::qcow2 {

// What decoding depends on besides the entry.
struct EntryContext {
  Geometry geometry;
  uint32_t version = 3;
  bool data_file = false;  // guest data lies in an external file, at its guest offset

  unsigned units() const { return geometry.extended_l2 ? kSubclusters : 1; }
  uint64_t unit_size() const { return geometry.cluster_size / units(); }
  uint32_t all_units() const { return geometry.extended_l2 ? ~uint32_t{0} : 1; }
};

struct ClusterState {
  uint32_t data = 0, zero = 0;  // one bit a unit, never both
  bool has_host = false;        // `host` is reserved for this cluster, whatever the units say
  bool copied = false;          // nobody else refers to the host cluster, or the compressed span
  bool compressed = false;      // then only `span` counts
  uint64_t host = 0;
  CompressedSpan span;

  bool empty() const { return !has_host && !compressed && data == 0 && zero == 0; }
};

// `guest`: the guest offset of the cluster. kInvalid for entries that cannot be read.
Result<ClusterState> DecodeCluster(const EntryContext& context, const Entry& entry, uint64_t guest);
// Not for compressed clusters.
Entry EncodeCluster(const EntryContext& context, const ClusterState& state);
// A stream of `length` bytes (1 to one cluster less one) at `offset`.
Entry EncodeCompressed(const Geometry& geometry, uint64_t offset, uint64_t length);

}  // namespace imgfsck::qcow2
