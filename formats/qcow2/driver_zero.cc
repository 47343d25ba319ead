// SPDX-License-Identifier: Apache-2.0
// Zeros without writing them, and giving space back.
#include <algorithm>
#include <bit>

#include "formats/qcow2/driver_read.h"
#include "formats/qcow2/driver_write.h"

namespace imgfsck::qcow2 {
namespace {

enum class Want { kZero, kDiscard };

// Zeros that have to be written: parts of units, and what version 2 cannot say.
Status WriteZeroBytes(Core& core, uint64_t offset, uint64_t length) {
  const ByteVector zeros(std::min(length, kMiB));
  while (length > 0) {
    uint64_t step = std::min<uint64_t>(length, zeros.size());
    IMG_RETURN_IF_ERROR(WriteGuest(core, offset, Bytes(zeros).first(step)));
    offset += step;
    length -= step;
  }
  return Ok();
}

Result<bool> ReadsAsZero(Core& core, uint64_t offset, uint64_t length) {
  while (length > 0) {
    IMG_ASSIGN_OR_RETURN(GuestRun run, LookUp(core, offset, length));
    bool zero = run.state == MappingState::kZero ||
                (run.state == MappingState::kUnallocated && !core.backing);
    if (!zero) return false;
    offset += run.length;
    length -= run.length;
  }
  return true;
}

Status ZeroPart(Core& core, uint64_t offset, uint64_t length) {
  IMG_ASSIGN_OR_RETURN(bool already, ReadsAsZero(core, offset, length));
  return already ? Ok() : WriteZeroBytes(core, offset, length);
}

uint32_t UnitMask(const Core& core, uint64_t from, uint64_t to) {  // bytes in one cluster
  unsigned first = static_cast<unsigned>(from / core.context.unit_size());
  unsigned end = static_cast<unsigned>(to / core.context.unit_size());
  uint64_t below = (uint64_t{1} << end) - 1;
  return static_cast<uint32_t>(below & ~((uint64_t{1} << first) - 1));
}

// The new state of a cluster of which the units in `mask` become zero. Nothing: no entry can say
// it, the zeros must be written.
std::optional<ClusterState> ZeroState(const Core& core, ClusterState state, uint32_t mask,
                                      Want want) {
  const bool whole = mask == core.context.all_units();
  if (core.context.version < 3) {
    if (!whole || core.backing) return std::nullopt;
    return ClusterState{};
  }
  if (state.compressed) {
    if (!whole) return std::nullopt;
    state = {};
  } else if (!core.backing && !state.has_host && state.data == 0) {
    mask &= state.zero;  // unallocated units read as zeros as they are
  }
  state.data &= ~mask;
  state.zero |= mask;
  bool keep = want == Want::kZero ? state.copied : core.raw_data();
  if (whole && !keep) state.has_host = state.copied = false;
  return state;
}

class Zeroing {
 public:
  Zeroing(Core& core, Want want) : core_(core), want_(want) {}

  // Multiples of the unit, within one L2 table.
  Status Run(uint64_t offset, uint64_t end) {
    const uint64_t cluster = core_.g().cluster_size;
    const uint64_t slot = core_.l1[core_.L1Index(offset)] & kOffsetMask;
    if (slot == 0 && !core_.backing) return Ok();
    std::shared_ptr<L2Table> table;
    if (slot != 0) {
      IMG_ASSIGN_OR_RETURN(table, core_.tables.Get(slot));
    }
    bool writable = false;
    while (offset < end) {
      uint64_t guest = AlignDown(offset, cluster), stop = std::min(end, guest + cluster);
      Entry old = table ? table->At(core_.L2Index(guest)) : Entry{};
      IMG_ASSIGN_OR_RETURN(ClusterState state, DecodeCluster(core_.context, old, guest));
      auto fresh = ZeroState(core_, state, UnitMask(core_, offset - guest, stop - guest), want_);
      if (!fresh) {
        if (want_ == Want::kZero) {
          IMG_RETURN_IF_ERROR(ZeroPart(core_, offset, std::min(stop, core_.size) - offset));
          IMG_ASSIGN_OR_RETURN(table, core_.WritableTable(core_.L1Index(guest)));
        }
      } else if (Entry entry = EncodeCluster(core_.context, *fresh);
                 entry.descriptor != old.descriptor || entry.subclusters != old.subclusters) {
        if (!writable) {
          IMG_ASSIGN_OR_RETURN(table, core_.WritableTable(core_.L1Index(guest)));
          writable = true;
        }
        table->Set(core_.L2Index(guest), entry);
        if (!fresh->has_host) Release(old);
      }
      offset = stop;
    }
    return Ok();
  }

 private:
  void Release(const Entry& old) {
    core_.ReleaseEntry(old);
    if (want_ == Want::kDiscard && !old.compressed() && old.host() != 0 &&
        !core_.context.data_file) {
      core_.punch.push_back(old.host() / core_.g().cluster_size);
    }
  }
  Core& core_;
  Want want_;
};

Status ZeroUnits(Core& core, uint64_t offset, uint64_t end, Want want) {
  Zeroing zeroing(core, want);
  while (offset < end) {
    uint64_t stop = std::min(end, (core.L1Index(offset) + 1) * core.g().l2_span);
    IMG_RETURN_IF_ERROR(zeroing.Run(offset, stop));
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
    offset = stop;
  }
  return Ok();
}

// A raw data file must read by itself as the guest does.
Status ZeroRawData(Core& core, uint64_t offset, uint64_t length) {
  if (!core.raw_data() || offset >= core.data->Size()) return Ok();
  length = std::min(length, core.data->Size() - offset);
  if (core.cipher != nullptr) return WriteZeroBytes(core, offset, length);
  return core.data->Zero(offset, length);
}

}  // namespace

Status ZeroGuest(Core& core, uint64_t offset, uint64_t length) {
  const uint64_t unit = core.context.version < 3 ? core.g().cluster_size : core.context.unit_size();
  const uint64_t end = offset + length;
  IMG_RETURN_IF_ERROR(ZeroRawData(core, offset, length));
  uint64_t first = AlignUp(offset, unit);
  uint64_t last = end == core.size ? AlignUp(end, unit) : AlignDown(end, unit);
  if (first > last || (first == last && offset != first)) return ZeroPart(core, offset, length);
  if (offset < first) {
    IMG_RETURN_IF_ERROR(ZeroPart(core, offset, std::min(first, end) - offset));
  }
  IMG_RETURN_IF_ERROR(ZeroUnits(core, first, last, Want::kZero));
  return last < end ? ZeroPart(core, last, end - last) : Ok();
}

Status DiscardGuest(Core& core, uint64_t offset, uint64_t length) {
  const uint64_t cluster = core.g().cluster_size, end = offset + length;
  uint64_t first = AlignUp(offset, cluster);
  uint64_t last = end == core.size ? AlignUp(end, cluster) : AlignDown(end, cluster);
  if (first >= last) return Ok();
  IMG_RETURN_IF_ERROR(ZeroRawData(core, first, last - first));
  return ZeroUnits(core, first, last, Want::kDiscard);
}

}  // namespace imgfsck::qcow2
