// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_read.h"

#include <algorithm>

namespace imgfsck::qcow2 {
namespace {

// Extends a run by the next unit's state, while it goes on where the run ends.
bool Continues(const GuestRun& run, MappingState state, bool reserved, uint64_t host) {
  if (run.state != state || run.reserved != reserved || state == MappingState::kCompressed) {
    return false;
  }
  bool placed = state == MappingState::kData || reserved;
  return !placed || host == run.host + run.length;
}

MappingState UnitState(const ClusterState& cluster, unsigned unit) {
  if ((cluster.data >> unit & 1) != 0) return MappingState::kData;
  return (cluster.zero >> unit & 1) != 0 ? MappingState::kZero : MappingState::kUnallocated;
}

// Adds what is the same from `at` on within one cluster; false when the run ends there.
bool AddCluster(const Core& core, const ClusterState& cluster, uint64_t at, GuestRun* run) {
  const uint64_t cluster_size = core.g().cluster_size, unit_size = core.context.unit_size();
  uint64_t in_cluster = at % cluster_size;
  if (cluster.compressed) {
    if (run->length > 0) return false;
    *run = {MappingState::kCompressed, cluster_size - in_cluster, 0, cluster.span, false};
    return false;
  }
  while (in_cluster < cluster_size) {
    MappingState state = UnitState(cluster, static_cast<unsigned>(in_cluster / unit_size));
    bool reserved = state != MappingState::kData && cluster.has_host;
    uint64_t host = state == MappingState::kData || reserved ? cluster.host + in_cluster : 0;
    if (run->length == 0) {
      *run = {state, 0, host, {}, reserved};
    } else if (!Continues(*run, state, reserved, host)) {
      return false;
    }
    uint64_t step = unit_size - in_cluster % unit_size;
    run->length += step;
    in_cluster += step;
  }
  return true;
}

Status ReadData(Core& core, uint64_t guest, uint64_t host, MutableBytes buffer) {
  // The last cluster may overhang the end of the file, no more.
  uint64_t file_end = AlignUp(core.file.Size(), core.g().cluster_size);
  if (!core.context.data_file && !RangeFits(host, buffer.size(), file_end)) {
    return DamagedAt("guest data past the end of the file", std::max(host, file_end));
  }
  if (core.cipher == nullptr) return core.data->Read(host, buffer);
  // Whole sectors; the ends go through a buffer of their own.
  uint64_t head = guest % kSector, whole = AlignUp(head + buffer.size(), kSector);
  if (head == 0 && whole == buffer.size()) {
    IMG_RETURN_IF_ERROR(core.data->Read(host, buffer));
    return core.cipher->Decrypt(guest, host, buffer);
  }
  ByteVector sectors(whole);
  IMG_RETURN_IF_ERROR(core.data->Read(host - head, sectors));
  IMG_RETURN_IF_ERROR(core.cipher->Decrypt(guest - head, host - head, sectors));
  std::ranges::copy(Bytes(sectors).subspan(head, buffer.size()), buffer.begin());
  return Ok();
}

Status ReadRun(Core& core, const GuestRun& run, uint64_t offset, MutableBytes buffer) {
  switch (run.state) {
    case MappingState::kData:
      return ReadData(core, offset, run.host, buffer);
    case MappingState::kUnallocated:
      if (core.backing) return core.backing(offset, buffer);
      break;
    case MappingState::kCompressed:  // never comes here
    case MappingState::kZero:
      break;
  }
  std::ranges::fill(buffer, uint8_t{0});
  return Ok();
}

}  // namespace

Result<GuestRun> LookUp(Core& core, uint64_t offset, uint64_t limit) {
  const Geometry& g = core.g();
  const uint64_t index = core.L1Index(offset);
  limit = std::min(limit, (index + 1) * g.l2_span - offset);
  GuestRun run;
  uint64_t table_offset = index < core.l1.size() ? core.l1[index] & kOffsetMask : 0;
  if (table_offset == 0) {
    run.length = limit;
    return run;
  }
  IMG_ASSIGN_OR_RETURN(auto table, core.tables.Get(table_offset));
  while (run.length < limit) {
    uint64_t at = offset + run.length;
    auto cluster =
        DecodeCluster(core.context, table->At(core.L2Index(at)), AlignDown(at, g.cluster_size));
    if (!cluster) {
      if (run.length > 0) break;  // up to the damage; the next call finds it
      return std::move(cluster).error();
    }
    if (!AddCluster(core, *cluster, at, &run)) break;
  }
  run.length = std::min(run.length, limit);
  return run;
}

Status ReadGuest(Core& core, uint64_t offset, MutableBytes buffer) {
  while (!buffer.empty()) {
    uint64_t inside = offset < core.size ? core.size - offset : 0;
    if (inside == 0) {
      std::ranges::fill(buffer, uint8_t{0});
      return Ok();
    }
    IMG_ASSIGN_OR_RETURN(GuestRun run,
                         LookUp(core, offset, std::min<uint64_t>(buffer.size(), inside)));
    uint64_t done = run.length;
    if (run.state == MappingState::kCompressed) {
      IMG_ASSIGN_OR_RETURN(
          done, ReadStreams(core, offset, buffer.first(std::min<uint64_t>(buffer.size(), inside))));
    } else {
      IMG_RETURN_IF_ERROR(ReadRun(core, run, offset, buffer.first(run.length)));
    }
    offset += done;
    buffer = buffer.subspan(done);
  }
  return Ok();
}

Result<BlockStatus> GuestStatus(Core& core, uint64_t offset, uint64_t limit) {
  limit = std::min(limit, core.size - offset);
  IMG_ASSIGN_OR_RETURN(GuestRun run, LookUp(core, offset, limit));
  BlockStatus status{run.length, run.state, std::nullopt};
  if (run.state == MappingState::kData || run.reserved) status.host_offset = run.host;
  // Long runs go on over many L2 tables.
  while (status.length < limit && run.state != MappingState::kCompressed) {
    uint64_t at = offset + status.length;
    if (at % core.g().l2_span != 0) break;
    auto next = LookUp(core, at, limit - status.length);
    run.length = status.length;
    if (!next || !Continues(run, next->state, next->reserved, next->host)) {
      break;
    }
    status.length += next->length;
  }
  return status;
}

}  // namespace imgfsck::qcow2
