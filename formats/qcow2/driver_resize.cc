// SPDX-License-Identifier: Apache-2.0
// The disk's size, its preallocation, emptying it, and the backing file's name (sheet, section 13,
// rules 4 and 8).
#include <algorithm>

#include "base/interrupt.h"
#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/driver_read.h"
#include "formats/qcow2/driver_write.h"

namespace imgfsck::qcow2 {
namespace {

Status WriteSize(Core& core, uint64_t size) {
  ByteVector field(8);
  StoreBe(field.data(), size);
  IMG_RETURN_IF_ERROR(core.WriteHeaderBytes(24, field));
  IMG_RETURN_IF_ERROR(core.file.Sync());
  core.size = size;
  core.bitmaps->Resize(size);
  return Ok();
}

// No cluster past `size` stays mapped, a saved VM state included.
Status UnmapPast(Core& core, uint64_t size) {
  const uint64_t first_slot = core.g().MinL1Entries(size);
  uint64_t guest = AlignUp(size, core.g().cluster_size);
  if (guest < first_slot * core.g().l2_span && (core.l1[core.L1Index(guest)] & kOffsetMask) != 0) {
    uint64_t slot = core.L1Index(guest);
    IMG_ASSIGN_OR_RETURN(auto table, core.tables.Get(core.l1[slot] & kOffsetMask));
    bool any = false;
    for (uint64_t i = core.L2Index(guest); i < core.g().l2_entries; ++i) {
      any = any || !table->At(i).empty();
    }
    if (any) {
      IMG_ASSIGN_OR_RETURN(table, core.WritableTable(slot));
      for (uint64_t i = core.L2Index(guest); i < core.g().l2_entries; ++i) {
        Entry old = table->At(i);
        if (old.empty()) continue;
        table->Set(i, Entry{});
        core.ReleaseEntry(old);
      }
    }
  }
  for (uint64_t slot = first_slot; slot < core.l1.size(); ++slot) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(core.DropTable(slot));
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
  }
  return Ok();
}

// What lies behind the end in the last cluster must not show when the disk grows.
Status ClearLastCluster(Core& core, uint64_t size) {
  uint64_t end = AlignUp(size, core.g().cluster_size);
  if (core.raw_data()) {  // it is as long as the disk, or there is more in it than there should be
    uint64_t data_end = std::min(end, core.data->Size());
    return size < data_end ? core.data->Zero(size, data_end - size) : Ok();
  }
  bool stale = false;
  for (uint64_t at = size; at < end;) {
    IMG_ASSIGN_OR_RETURN(GuestRun run, LookUp(core, at, end - at));
    if (run.state == MappingState::kData) stale = true;
    if (run.state == MappingState::kCompressed) {
      ByteVector cluster(core.g().cluster_size);
      IMG_RETURN_IF_ERROR(ReadCompressed(core, run.span, cluster));
      stale = stale || !AllZero(Bytes(cluster).subspan(at % cluster.size()));
    }
    at += run.length;
  }
  if (!stale) return Ok();
  return WriteGuest(core, size, ByteVector(end - size));
}

Status Grow(Core& core, uint64_t size) {
  const uint64_t old = core.size;
  IMG_RETURN_IF_ERROR(UnmapPast(core, old));
  IMG_RETURN_IF_ERROR(ClearLastCluster(core, old));
  uint64_t slots = core.g().MinL1Entries(size);
  if (core.l1.size() < slots) {
    IMG_RETURN_IF_ERROR(core.Flush());
    std::vector<uint64_t> l1 = core.l1;
    l1.resize(slots);
    IMG_RETURN_IF_ERROR(core.ReplaceL1(std::move(l1), std::nullopt));
  }
  IMG_RETURN_IF_ERROR(core.Flush());
  if (core.raw_data()) {
    if (core.data->Size() < size) IMG_RETURN_IF_ERROR(core.data->Truncate(size));
    const uint64_t first = AlignUp(old, core.g().cluster_size);
    if (first < size) IMG_RETURN_IF_ERROR(Preallocate(core, first, size - first));
    IMG_RETURN_IF_ERROR(core.Flush());
  }
  return WriteSize(core, size);
}

// A raw data file reads as the disk at every moment: there the size comes first.
Status ShrinkRaw(Core& core, uint64_t size) {
  IMG_RETURN_IF_ERROR(WriteSize(core, size));
  IMG_RETURN_IF_ERROR(UnmapPast(core, size));
  IMG_RETURN_IF_ERROR(core.Flush());
  if (core.data->Size() <= size) return Ok();
  IMG_RETURN_IF_ERROR(core.data->Truncate(size));
  return core.data->Sync();
}

Status Shrink(Core& core, uint64_t size) {
  IMG_RETURN_IF_ERROR(UnmapPast(core, size));
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_ASSIGN_OR_RETURN(uint64_t end, core.refcounts.EndOfCounted());
  if (end != 0 && end < core.file.Size()) IMG_RETURN_IF_ERROR(core.file.Truncate(end));
  IMG_RETURN_IF_ERROR(core.file.Sync());
  return WriteSize(core, size);
}

}  // namespace

Status Core::ReplaceL1(std::vector<uint64_t> fresh, std::optional<uint64_t> new_size) {
  if (fresh.empty()) fresh.resize(1);
  if (fresh.size() * 8 > kMaxL1Bytes) {
    return Error{ErrorCode::kTooLarge, "the disk would need too large an L1 table", {}};
  }
  const uint64_t clusters = g().ClustersOf(fresh.size() * 8);
  IMG_ASSIGN_OR_RETURN(uint64_t offset, refcounts.AllocateExactly(clusters));
  ByteVector bytes(clusters * g().cluster_size);
  for (size_t i = 0; i < fresh.size(); ++i) StoreBe(&bytes[8 * i], fresh[i]);
  IMG_RETURN_IF_ERROR(file.Write(offset, bytes));
  IMG_RETURN_IF_ERROR(refcounts.Write());
  IMG_RETURN_IF_ERROR(file.Sync());
  ByteVector fields(12);  // l1_size, l1_table_offset; in front of them size and crypt_method
  StoreBe(&fields[0], static_cast<uint32_t>(fresh.size()));
  StoreBe(&fields[4], offset);
  if (new_size) {
    fields.insert(fields.begin(), 12, uint8_t{0});
    StoreBe(&fields[0], *new_size);
    StoreBe(&fields[8], header.crypt_method);
  }
  IMG_RETURN_IF_ERROR(WriteHeaderBytes(new_size ? 24 : 36, fields));
  IMG_RETURN_IF_ERROR(file.Sync());
  if (!l1.empty()) {
    refcounts.ReleaseSpan(l1_offset, l1.size() * 8);
    metadata.fixed.Erase(l1_offset, AlignUp(l1.size() * 8, g().cluster_size));
  }
  metadata.fixed.Insert(offset, clusters * g().cluster_size);
  l1_offset = offset;
  l1 = std::move(fresh);
  l1_dirty.clear();
  if (new_size) {
    size = *new_size;
    bitmaps->Resize(size);
  }
  return Ok();
}

Status ResizeGuest(Core& core, uint64_t size) {
  if (size % kSector != 0) {
    return Error{ErrorCode::kInvalid, "a disk's size is a multiple of 512", {}};
  }
  if (!core.header.is_v3() && !core.snapshots.empty()) {
    return Error{ErrorCode::kUnsupported, "a version 2 image with snapshots cannot be resized", {}};
  }
  if (core.g().MinL1Entries(size) > kMaxL1Bytes / 8 || size > uint64_t{1} << 62) {
    return Error{ErrorCode::kTooLarge, "the disk would need too large an L1 table", {}};
  }
  if (size == core.size) return Ok();
  if (size > core.size) return Grow(core, size);
  return core.raw_data() ? ShrinkRaw(core, size) : Shrink(core, size);
}

Status EmptyGuest(Core& core) {
  if (core.raw_data()) {
    return Error{ErrorCode::kUnsupported, "a raw data file is always mapped as a whole", {}};
  }
  for (uint64_t slot = 0; slot < core.l1.size(); ++slot) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_RETURN_IF_ERROR(core.DropTable(slot));
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
  }
  return core.Flush();
}

Status ChangeBacking(Core& core, const std::optional<BackingReference>& backing) {
  if (core.raw_data() && backing) {
    return Error{ErrorCode::kUnsupported, "no backing file with a raw data file", {}};
  }
  if (backing && (backing->name.empty() || backing->name.size() > kMaxBackingNameLength ||
                  backing->format.size() > kMaxBackingFormatLength)) {
    return Error{ErrorCode::kInvalid, "the backing file's name or format has a wrong length", {}};
  }
  IMG_RETURN_IF_ERROR(core.Flush());
  IMG_ASSIGN_OR_RETURN(HeaderArea area, HeaderArea::Parse(core.image->first_cluster));
  area.backing_name.reset();
  area.SetExtension(kExtBackingFormat, std::nullopt);
  if (backing) {
    area.backing_name = backing->name;
    if (!backing->format.empty()) {
      Bytes format = AsBytes(backing->format);
      area.SetExtension(kExtBackingFormat, ByteVector(format.begin(), format.end()));
    }
  }
  return core.RewriteHeader(std::move(area));
}

Status Preallocate(Core& core, uint64_t offset, uint64_t length) {
  const uint64_t cluster = core.g().cluster_size, end = offset + length;
  uint64_t guest = AlignDown(offset, cluster);
  while (guest < end) {
    IMG_ASSIGN_OR_RETURN(auto table, core.WritableTable(core.L1Index(guest)));
    uint64_t stop = std::min(end, (core.L1Index(guest) + 1) * core.g().l2_span);
    HostRun run{guest, core.g().ClustersOf(stop - guest)};
    if (!core.context.data_file) {
      IMG_ASSIGN_OR_RETURN(run, core.refcounts.Allocate(run.clusters));
      uint64_t old_end = core.file.Size(), host_end = run.offset + run.clusters * cluster;
      if (run.offset < old_end) {
        IMG_RETURN_IF_ERROR(core.file.Zero(run.offset, std::min(old_end, host_end) - run.offset));
      }
      if (host_end > old_end) IMG_RETURN_IF_ERROR(core.file.Truncate(host_end));
    }
    for (uint64_t i = 0; i < run.clusters; ++i, guest += cluster) {
      Entry old = table->At(core.L2Index(guest));
      if (!old.empty()) return Error{ErrorCode::kExists, "the range is allocated already", {}};
      ClusterState state;
      state.has_host = state.copied = true;
      state.host = run.offset + i * cluster;
      // Reserved subclusters read from the backing file; of plain ones only data can be reserved.
      if (!core.g().extended_l2 || core.raw_data()) state.data = core.context.all_units();
      table->Set(core.L2Index(guest), EncodeCluster(core.context, state));
    }
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
