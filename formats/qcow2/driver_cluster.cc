// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_cluster.h"

#include <fmt/format.h>

namespace imgfsck::qcow2 {
namespace {

Error Unreadable(uint64_t guest, const char* why) {
  return {ErrorCode::kInvalid, fmt::format("guest cluster at {:#x}: {}", guest, why), {}};
}

Status DecodeExtended(const Entry& entry, uint64_t guest, ClusterState* state) {
  state->data = entry.alloc_bits();
  state->zero = entry.zero_bits();
  if ((state->data & state->zero) != 0) {
    return Unreadable(guest, "a subcluster is both allocated and zero");
  }
  if (state->data != 0 && !state->has_host) {
    return Unreadable(guest, "subclusters are allocated, but there is no host cluster");
  }
  return Ok();
}

}  // namespace

Result<ClusterState> DecodeCluster(const EntryContext& context, const Entry& entry,
                                   uint64_t guest) {
  const Geometry& g = context.geometry;
  ClusterState state;
  if (entry.compressed()) {
    if (context.data_file) return Unreadable(guest, "compressed, with an external data file");
    state.compressed = true;
    state.span = DecodeCompressed(g, entry.descriptor);
    return state;
  }
  state.host = entry.host();
  // Offset 0 is a place only in a data file, where COPIED tells it from "unallocated".
  state.has_host = state.host != 0 || (context.data_file && entry.copied());
  state.copied = state.has_host && entry.copied();
  if (g.extended_l2) {
    IMG_RETURN_IF_ERROR(DecodeExtended(entry, guest, &state));
  } else if (entry.zero_flag()) {
    if (context.version < 3) return Unreadable(guest, "a zero flag, which version 2 has not");
    state.zero = 1;
  } else {
    state.data = state.has_host ? 1 : 0;
  }
  if (state.data != 0 && !IsAligned(state.host, g.cluster_size)) {
    return Unreadable(guest, "the host offset is not a multiple of the cluster size");
  }
  if (state.data != 0 && context.data_file && state.host != guest) {
    return Unreadable(guest, "mapped to another place of the data file than its own");
  }
  return state;
}

Entry EncodeCluster(const EntryContext& context, const ClusterState& state) {
  Entry entry;
  if (state.has_host) entry.descriptor = state.host | (state.copied ? kCopied : 0);
  if (context.geometry.extended_l2) {
    entry.subclusters = uint64_t{state.zero} << 32 | state.data;
  } else if (state.zero != 0) {
    entry.descriptor |= kZeroFlag;
  }
  return entry;
}

Entry EncodeCompressed(const Geometry& g, uint64_t offset, uint64_t length) {
  uint64_t sectors = (offset + length - 1) / kCompressedSector - offset / kCompressedSector;
  return {kCompressed | sectors << g.compressed_bits | offset, 0};
}

}  // namespace imgfsck::qcow2
