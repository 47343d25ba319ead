// SPDX-License-Identifier: Apache-2.0
// Plain writes. A request is cut into segments: clusters that follow one another both in the guest
// and on the host. New data goes where nothing on disk refers to, or in place into clusters that
// are this image's alone; L2 entries follow in memory, and reach the disk with the next flush.
#include "formats/qcow2/driver_write.h"

#include <algorithm>

#include "formats/qcow2/driver_read.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kChunk = kMiB;  // bytes copied or encrypted at a time

struct Segment {
  std::shared_ptr<L2Table> table;
  uint64_t guest = 0;           // of the first cluster
  uint64_t host = 0;            // of the first cluster
  uint64_t begin = 0, end = 0;  // guest bytes written
  bool moved = false;           // the host clusters are newly allocated
  uint64_t old_end = 0;         // the file's size before: what lies behind reads as zeros
  std::vector<Entry> old;
};

bool InPlace(const Core& core, const ClusterState& state) {
  return !state.compressed && (core.context.data_file || (state.has_host && state.copied));
}

Result<ClusterState> StateOf(const Core& core, const Entry& entry, uint64_t guest) {
  return DecodeCluster(core.context, entry, guest);
}

// Clusters from the first on that are treated alike; decides where they are written.
Status Place(Core& core, Segment* s) {
  const uint64_t cluster = core.g().cluster_size;
  uint64_t wanted = core.g().ClustersOf(s->end - s->guest), count = 0;
  for (; count < wanted; ++count) {
    uint64_t guest = s->guest + count * cluster;
    Entry entry = s->table->At(core.L2Index(guest));
    auto state = StateOf(core, entry, guest);
    if (!state && count > 0) break;
    if (!state) return std::move(state).error();
    bool in_place = InPlace(core, *state);
    uint64_t host = core.context.data_file ? guest : state->host;
    if (count == 0) {
      s->moved = !in_place;
      s->host = host;
    } else if (in_place == s->moved || (in_place && host != s->host + count * cluster)) {
      break;
    }
    s->old.push_back(entry);
  }
  if (s->moved) {
    IMG_ASSIGN_OR_RETURN(HostRun run, core.refcounts.Allocate(count));
    s->host = run.offset;
    count = run.clusters;
  } else if (!core.context.data_file && core.metadata.Overlaps(s->host, count * cluster)) {
    return core.refcounts.ReportDamage(s->host, "guest data lies on metadata");
  }
  s->old.resize(count);
  s->end = std::min(s->end, s->guest + count * cluster);
  return Ok();
}

// Fills guest range [from, to) at `host` with what it reads now.
Status Fill(Core& core, const Segment& s, uint64_t from, uint64_t to) {
  uint64_t host = s.host + (from - s.guest);
  while (from < to) {
    uint64_t length = std::min(to - from, kChunk);
    bool zeros = from >= core.size;
    if (!zeros) {
      length = std::min(length, core.size - from);
      IMG_ASSIGN_OR_RETURN(GuestRun run, LookUp(core, from, length));
      length = run.length;
      zeros = run.state == MappingState::kZero ||
              (run.state == MappingState::kUnallocated && !core.backing);
    }
    if (zeros && core.cipher == nullptr) {
      uint64_t inside = host < s.old_end ? std::min(length, s.old_end - host) : 0;
      if (inside > 0) IMG_RETURN_IF_ERROR(core.data->Zero(host, inside));
    } else {
      ByteVector bytes(length);
      if (!zeros) IMG_RETURN_IF_ERROR(ReadGuest(core, from, bytes));
      IMG_RETURN_IF_ERROR(WriteData(core, from, host, bytes));
    }
    from += length;
    host += length;
  }
  return Ok();
}

// What of one cluster must be filled up around the bytes written, and its new state.
Status FinishCluster(Core& core, const Segment& s, size_t number, ClusterState* state) {
  const uint64_t cluster = core.g().cluster_size, unit = core.context.unit_size();
  const uint64_t guest = s.guest + number * cluster;
  const uint64_t from = std::max(s.begin, guest), to = std::min(s.end, guest + cluster);
  const uint32_t before = state->compressed ? core.context.all_units() : state->data;
  uint32_t data = s.moved ? 0 : state->data;
  for (unsigned u = 0; u < core.context.units(); ++u) {
    uint64_t begin = guest + u * unit, end = begin + unit;
    bool had = (before >> u & 1) != 0, in_place = had && !s.moved;
    bool touched = begin < to && from < end;
    if (!touched && (!had || in_place)) continue;
    if (!in_place) {
      uint64_t written_from = touched ? std::max(begin, from) : end;
      uint64_t written_to = touched ? std::min(end, to) : end;
      IMG_RETURN_IF_ERROR(Fill(core, s, begin, written_from));
      IMG_RETURN_IF_ERROR(Fill(core, s, written_to, end));
    }
    data |= uint32_t{1} << u;
  }
  state->zero = state->compressed ? 0 : state->zero & ~data;
  state->data = data;
  state->compressed = false;
  state->has_host = state->copied = true;
  state->host = s.host + number * cluster;
  return Ok();
}

Status Carry(Core& core, Segment* s, Bytes bytes) {
  const uint64_t cluster = core.g().cluster_size;
  s->old_end = core.data->Size();
  IMG_RETURN_IF_ERROR(WriteData(core, s->begin, s->host + (s->begin - s->guest), bytes));
  std::vector<Entry> fresh(s->old.size());
  for (size_t i = 0; i < s->old.size(); ++i) {
    uint64_t guest = s->guest + i * cluster;
    IMG_ASSIGN_OR_RETURN(ClusterState state, StateOf(core, s->old[i], guest));
    IMG_RETURN_IF_ERROR(FinishCluster(core, *s, i, &state));
    fresh[i] = EncodeCluster(core.context, state);
  }
  for (size_t i = 0; i < fresh.size(); ++i) {
    if (fresh[i].descriptor == s->old[i].descriptor &&
        fresh[i].subclusters == s->old[i].subclusters) {
      continue;
    }
    s->table->Set(core.L2Index(s->guest + i * cluster), fresh[i]);
    if (s->moved) core.ReleaseEntry(s->old[i]);
  }
  return Ok();
}

// A raw data file holds zeros where the image says zeros. Such clusters are mapped before the data
// come, so that at no moment the file reads otherwise than the image.
Status MapRawData(Core& core, const Segment& s) {
  const uint64_t cluster = core.g().cluster_size;
  bool changed = false;
  for (uint64_t guest = s.guest; guest < s.end; guest += cluster) {
    const Entry entry = s.table->At(core.L2Index(guest));
    IMG_ASSIGN_OR_RETURN(ClusterState state, StateOf(core, entry, guest));
    if (state.data == core.context.all_units()) continue;
    state = {};
    state.data = core.context.all_units();
    state.has_host = state.copied = true;
    state.host = guest;
    s.table->Set(core.L2Index(guest), EncodeCluster(core.context, state));
    changed = true;
  }
  return changed ? core.Flush() : Ok();
}

// Writes as much of `bytes` as is one segment; says how much.
Result<uint64_t> WriteSegment(Core& core, uint64_t offset, Bytes bytes) {
  Segment s;
  s.guest = AlignDown(offset, core.g().cluster_size);
  s.begin = offset;
  s.end = std::min(offset + bytes.size(), (core.L1Index(offset) + 1) * core.g().l2_span);
  IMG_ASSIGN_OR_RETURN(s.table, core.WritableTable(core.L1Index(offset)));
  if (core.raw_data()) IMG_RETURN_IF_ERROR(MapRawData(core, s));
  IMG_RETURN_IF_ERROR(Place(core, &s));
  auto status = Carry(core, &s, bytes.first(s.end - s.begin));
  if (!status) {
    if (s.moved) core.refcounts.ReleaseSpan(s.host, s.old.size() * core.g().cluster_size);
    return std::move(status).error();
  }
  return s.end - s.begin;
}

// Encryption works on sectors: the rest of a sector is read and written again.
Status WritePartSector(Core& core, uint64_t offset, Bytes bytes) {
  uint64_t sector = AlignDown(offset, kSector);
  ByteVector whole(kSector);
  IMG_RETURN_IF_ERROR(ReadGuest(core, sector, whole));
  std::ranges::copy(bytes, whole.begin() + static_cast<ptrdiff_t>(offset - sector));
  IMG_ASSIGN_OR_RETURN(uint64_t written, WriteSegment(core, sector, whole));
  IMG_CHECK(written == kSector);
  return Ok();
}

}  // namespace

Status WriteData(Core& core, uint64_t guest, uint64_t host, Bytes bytes) {
  if (core.cipher == nullptr) return core.data->Write(host, bytes);
  while (!bytes.empty()) {
    size_t length = std::min<size_t>(bytes.size(), kChunk);
    ByteVector sectors(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length));
    IMG_RETURN_IF_ERROR(core.cipher->Encrypt(guest, host, sectors));
    IMG_RETURN_IF_ERROR(core.data->Write(host, sectors));
    guest += length;
    host += length;
    bytes = bytes.subspan(length);
  }
  return Ok();
}

Status WriteGuest(Core& core, uint64_t offset, Bytes bytes) {
  while (!bytes.empty()) {
    uint64_t length = bytes.size();
    if (core.cipher != nullptr && (offset % kSector != 0 || length < kSector)) {
      length = std::min(length, kSector - offset % kSector);
      IMG_RETURN_IF_ERROR(WritePartSector(core, offset, bytes.first(length)));
    } else {
      if (core.cipher != nullptr) length = AlignDown(length, kSector);
      IMG_ASSIGN_OR_RETURN(length, WriteSegment(core, offset, bytes.first(length)));
    }
    offset += length;
    bytes = bytes.subspan(length);
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
