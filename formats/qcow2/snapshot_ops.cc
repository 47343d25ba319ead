// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/snapshot_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "base/interrupt.h"
#include "base/text.h"
#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/driver_recount.h"

namespace imgfsck::qcow2 {
namespace {

using Snapshots = std::vector<Snapshot>;

Result<size_t> Find(const Core& core, std::string_view name_or_id) {
  for (auto field : {&Snapshot::id, &Snapshot::name}) {
    auto found = std::ranges::find(core.snapshots, name_or_id, field);
    if (found != core.snapshots.end()) {
      return static_cast<size_t>(found - core.snapshots.begin());
    }
  }
  return Error{ErrorCode::kNotFound, fmt::format("no snapshot \"{}\"", Printable(name_or_id)), {}};
}

std::string NextId(const Snapshots& snapshots) {
  uint64_t highest = 0;
  for (const Snapshot& s : snapshots) {
    uint64_t id = 0;
    auto [end, error] = std::from_chars(s.id.data(), s.id.data() + s.id.size(), id);
    if (error == std::errc() && id < UINT64_MAX) highest = std::max(highest, id);
  }
  return fmt::format("{}", highest + 1);
}

Status CheckRoom(const Core& core, std::string_view name) {
  if (core.context.data_file) {
    return Error{ErrorCode::kUnsupported, "no snapshots with an external data file", {}};
  }
  if (name.size() > UINT16_MAX) return Error{ErrorCode::kInvalid, "the name is too long", {}};
  if (core.snapshots.size() >= kMaxSnapshots) {
    return Error{ErrorCode::kTooLarge, "too many snapshots", {}};
  }
  return Ok();
}

// Writes a new table elsewhere and puts it in force by one header write; the old one is given up.
Status SwitchTable(Core& core, Snapshots snapshots) {
  ByteVector bytes;
  uint64_t used = 0, offset = 0;
  for (const Snapshot& s : snapshots) {
    ByteVector entry = EncodeSnapshot(s);
    used = bytes.size() + 40 + s.extra.size() + s.id.size() + s.name.size();
    bytes.insert(bytes.end(), entry.begin(), entry.end());
  }
  if (bytes.size() > kMaxSnapshotTableBytes) {
    return Error{ErrorCode::kTooLarge, "the snapshot table would be too large", {}};
  }
  if (!bytes.empty()) {
    // The last entry's padding is not part of the table.
    bytes.resize(used);
    IMG_ASSIGN_OR_RETURN(offset, core.refcounts.AllocateExactly(core.g().ClustersOf(used)));
    bytes.resize(AlignUp(used, core.g().cluster_size));
    IMG_RETURN_IF_ERROR(core.file.Write(offset, bytes));
  }
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_RETURN_IF_ERROR(core.refcounts.Write());  // with lazy refcounts, too
  IMG_RETURN_IF_ERROR(core.file.Sync());
  ByteVector fields(12);  // nb_snapshots, snapshots_offset
  StoreBe(&fields[0], static_cast<uint32_t>(snapshots.size()));
  StoreBe(&fields[4], offset);
  IMG_RETURN_IF_ERROR(core.WriteHeaderBytes(60, fields));
  IMG_RETURN_IF_ERROR(core.file.Sync());
  SnapshotTable& table = core.image->snapshots;
  if (!core.snapshots.empty()) {
    uint64_t length = table.end - table.offset;
    core.refcounts.ReleaseSpan(table.offset, length);
    core.metadata.fixed.Erase(table.offset, AlignUp(length, core.g().cluster_size));
  }
  core.metadata.fixed.Insert(offset, AlignUp(used, core.g().cluster_size));
  table.offset = offset;
  table.end = offset + used;
  core.snapshots = std::move(snapshots);
  return Ok();
}

Result<std::vector<uint64_t>> ReadL1(const Core& core, const Snapshot& s) {
  ByteVector bytes(uint64_t{s.l1_size} * 8);
  IMG_RETURN_IF_ERROR(core.file.Read(s.l1_table_offset, bytes));
  std::vector<uint64_t> l1(s.l1_size);
  for (size_t i = 0; i < l1.size(); ++i) l1[i] = LoadBe<uint64_t>(&bytes[8 * i]);
  return l1;
}

Status ReleaseTables(Core& core, const std::vector<uint64_t>& l1) {
  for (uint64_t slot : l1) {
    uint64_t offset = slot & kOffsetMask;
    if (offset == 0) continue;
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(auto table, core.tables.Get(offset));
    for (uint64_t i = 0; i < core.g().l2_entries; ++i) core.ReleaseEntry(table->At(i));
    core.refcounts.Release(offset / core.g().cluster_size);
    if (core.refcounts.ReleasesPending() > 1 << 20) IMG_RETURN_IF_ERROR(core.Flush());
  }
  return Ok();
}

void MapTables(Core& core) {
  core.metadata.tables = {};
  for (uint64_t slot : core.l1) {
    if ((slot & kOffsetMask) != 0) {
      core.metadata.tables.Insert(slot & kOffsetMask, core.g().cluster_size);
    }
  }
}

Snapshot Describe(const Core& core, std::string_view name, uint64_t l1_offset) {
  Snapshot s;
  s.id = NextId(core.snapshots);
  s.name = name;
  s.l1_table_offset = l1_offset;
  s.l1_size = static_cast<uint32_t>(core.l1.size());
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  s.date_sec = static_cast<uint32_t>(now.tv_sec);
  s.date_nsec = static_cast<uint32_t>(now.tv_nsec);
  s.extra.resize(24);  // VM state size, disk size, instruction count
  StoreBe(&s.extra[8], core.header.size);
  StoreBe(&s.extra[16], ~uint64_t{0});
  s.extra_data_size = 24;
  return s;
}

}  // namespace

std::vector<SnapshotInfo> ListSnapshots(const Core& core) {
  std::vector<SnapshotInfo> list;
  for (const Snapshot& s : core.snapshots) {
    list.push_back({s.id, s.name, s.disk_size().value_or(core.header.size), s.vm_state_size(),
                    int64_t{s.date_sec}});
  }
  return list;
}

Status CreateSnapshot(Core& core, std::string_view name) {
  IMG_RETURN_IF_ERROR(CheckRoom(core, name));
  IMG_RETURN_IF_ERROR(core.Flush());
  ByteVector l1(std::max<uint64_t>(core.l1.size() * 8, 8));
  for (uint64_t i = 0; i < core.l1.size(); ++i) {
    uint64_t offset = core.l1[i] & kOffsetMask;
    if (offset == 0) continue;
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(uint64_t shared, ShareTable(core, i, offset));
    StoreBe(&l1[8 * i], shared);
    if (shared == offset) core.SetL1(i, offset);
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
  }
  uint64_t clusters = core.g().ClustersOf(l1.size());
  IMG_ASSIGN_OR_RETURN(uint64_t offset, core.refcounts.AllocateExactly(clusters));
  l1.resize(clusters * core.g().cluster_size);
  IMG_RETURN_IF_ERROR(core.file.Write(offset, l1));
  Snapshots snapshots = core.snapshots;
  snapshots.push_back(Describe(core, name, offset));
  IMG_RETURN_IF_ERROR(SwitchTable(core, std::move(snapshots)));
  core.metadata.fixed.Insert(offset, clusters * core.g().cluster_size);
  return core.Flush();
}

Status DeleteSnapshot(Core& core, std::string_view name_or_id) {
  IMG_ASSIGN_OR_RETURN(size_t number, Find(core, name_or_id));
  const Snapshot gone = core.snapshots[number];
  IMG_ASSIGN_OR_RETURN(auto l1, ReadL1(core, gone));
  Snapshots snapshots = core.snapshots;
  snapshots.erase(snapshots.begin() + static_cast<ptrdiff_t>(number));
  IMG_RETURN_IF_ERROR(SwitchTable(core, std::move(snapshots)));
  uint64_t l1_bytes = std::max<uint64_t>(uint64_t{gone.l1_size} * 8, 1);
  core.refcounts.ReleaseSpan(gone.l1_table_offset, l1_bytes);
  core.metadata.fixed.Erase(gone.l1_table_offset, AlignUp(l1_bytes, core.g().cluster_size));
  IMG_RETURN_IF_ERROR(ReleaseTables(core, l1));
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_RETURN_IF_ERROR(FixCopied(&core));
  return core.Flush();
}

Status ApplySnapshot(Core& core, std::string_view name_or_id) {
  IMG_ASSIGN_OR_RETURN(size_t number, Find(core, name_or_id));
  const Snapshot target = core.snapshots[number];
  const uint64_t size = AlignDown(target.disk_size().value_or(core.header.size), kSector);
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_ASSIGN_OR_RETURN(auto l1, ReadL1(core, target));
  if (l1.size() < core.g().MinL1Entries(size)) {
    return DamagedAt("the snapshot's L1 table does not fit its disk", target.l1_table_offset);
  }
  for (uint64_t i = 0; i < l1.size(); ++i) {
    uint64_t offset = l1[i] & kOffsetMask;
    if (offset != 0) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(offset, ShareTable(core, i, offset));
    }
    l1[i] = offset;
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
  }
  IMG_RETURN_IF_ERROR(core.Flush());
  const std::vector<uint64_t> old = core.l1;
  IMG_RETURN_IF_ERROR(core.ReplaceL1(std::move(l1), size));
  MapTables(core);
  core.bitmaps->MarkAll();
  IMG_RETURN_IF_ERROR(ReleaseTables(core, old));
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_RETURN_IF_ERROR(FixCopied(&core));
  return core.Flush();
}

}  // namespace imgfsck::qcow2
