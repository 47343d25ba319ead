// SPDX-License-Identifier: Apache-2.0
// Reading guest data, and asking where it is. Safe from several threads while nobody writes.
#pragma once

#include "formats/qcow2/driver_core.h"

namespace imgfsck::qcow2 {

// A run of guest bytes in one state, within one L2 table's reach.
struct GuestRun {
  MappingState state = MappingState::kUnallocated;
  uint64_t length = 0;
  uint64_t host = 0;      // data, reserved: where the first byte lies
  CompressedSpan span;    // compressed: the run is (the rest of) one cluster
  bool reserved = false;  // no data: there is a host cluster for it
};

// `limit` > 0 bytes from `offset` on, both inside the L1 table's reach.
Result<GuestRun> LookUp(Core& core, uint64_t offset, uint64_t limit);
// Any range; past the disk's end zeros. kInvalid at damage.
Status ReadGuest(Core& core, uint64_t offset, MutableBytes buffer);
Result<BlockStatus> GuestStatus(Core& core, uint64_t offset, uint64_t limit);
// The whole cluster that a compressed entry holds.
Status ReadCompressed(Core& core, const CompressedSpan& span, MutableBytes cluster);
// Reads from `offset`, which lies in a compressed cluster, as far as such clusters go on; says how
// many bytes.
Result<uint64_t> ReadStreams(Core& core, uint64_t offset, MutableBytes buffer);

}  // namespace imgfsck::qcow2
