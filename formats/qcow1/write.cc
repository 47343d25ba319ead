// SPDX-License-Identifier: Apache-2.0
// The writing half of the driver; driver.h says in which order things become durable.
#include <algorithm>
#include <cstring>

#include "base/interrupt.h"
#include "formats/common/deflate.h"
#include "formats/qcow1/driver.h"
#include "formats/qcow1/xen.h"

namespace imgfsck::qcow1 {
namespace {

constexpr size_t kMostPending = 16384;  // entries held back before they are written

}  // namespace

Status QcowDriver::RequireWritable() const {
  if (store_ != nullptr) return Ok();
  return Error{ErrorCode::kPermission, "the image is open for reading only", {}};
}

Status QcowDriver::PrepareToGrow() {
  if (may_grow_) return Ok();
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(*store_));
  Error dangling{ErrorCode::kInvalid,
                 "entries point beyond the end of the file; the image has to be repaired before it "
                 "can grow",
                 {}};
  if (header_.l1_table_offset >= image->file_size) return dangling;
  uint64_t end = SaturatingAdd(header_.l1_table_offset, geometry_.l1_bytes());
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  for (const L1Slot& slot : image->l1) {
    IMG_RETURN_IF_ERROR(CheckStop());
    SlotState state = image->StateOf(slot);
    if (state == SlotState::kPastEof) return dangling;
    if (state != SlotState::kUsable) continue;
    end = std::max(end, slot.value + geometry_.l2_bytes);
    ReadL2(*image, slot.value, &entries, &bad);
    for (uint64_t raw : entries) {
      EntryCheck check = raw == 0 ? EntryCheck{} : CheckEntry(*image, Entry{raw});
      if (check.past_eof && !check.unreadable) return dangling;
      if (check.cut) end = std::max(end, raw + geometry_.cluster_size);
    }
  }
  if (end > store_->Size()) IMG_RETURN_IF_ERROR(store_->SetSize(end));
  may_grow_ = true;
  return Ok();
}

Result<uint64_t> QcowDriver::TableForWriting(uint64_t offset) {
  IMG_RETURN_IF_ERROR(PrepareToGrow());
  IMG_ASSIGN_OR_RETURN(uint64_t table, TableFor(offset));
  if (table != 0) return table;
  table = AlignUp(store_->Size(), geometry_.cluster_size);
  if ((table & kTopBit) != 0) return Error{ErrorCode::kTooLarge, "the file is too long", {}};
  IMG_RETURN_IF_ERROR(store_->SetSize(table + geometry_.l2_bytes));  // zeros
  pending_[header_.l1_table_offset + 8 * (offset / geometry_.span)] = table;
  l1_changed_ = true;
  return table;
}

Status QcowDriver::SetEntry(uint64_t offset, Entry entry) {
  IMG_ASSIGN_OR_RETURN(uint64_t table, TableForWriting(offset));
  pending_[table + 8 * (offset / geometry_.cluster_size % geometry_.l2_entries)] = entry.raw;
  return pending_.size() < kMostPending ? Ok() : Publish();
}

Status QcowDriver::WriteInPlace(Entry entry, uint64_t offset, Bytes bytes) {
  uint64_t host = entry.raw + (offset & (geometry_.cluster_size - 1));
  if (!aes_) return store_->WriteAt(host, bytes);
  // Whole sectors are encrypted: what surrounds the new bytes is read first.
  uint64_t lead = offset % kSector;
  ByteVector whole(AlignUp(lead + bytes.size(), kSector));
  if (whole.size() != bytes.size()) IMG_RETURN_IF_ERROR(ReadPlain(entry, offset - lead, whole));
  std::memcpy(whole.data() + lead, bytes.data(), bytes.size());
  IMG_RETURN_IF_ERROR(aes_->Encrypt(offset - lead, whole));
  return store_->WriteAt(host - lead, whole);
}

Status QcowDriver::WriteNewCluster(Entry old, uint64_t offset, Bytes bytes) {
  uint64_t start = AlignDown(offset, geometry_.cluster_size);
  ByteVector cluster(geometry_.cluster_size);
  uint64_t used = ClusterEnd(offset) - start;  // the rest lies behind the disk: zeros
  if (bytes.size() < used) {
    IMG_RETURN_IF_ERROR(ReadPart(old, start, MutableBytes(cluster).first(used)));
  }
  std::memcpy(cluster.data() + (offset - start), bytes.data(), bytes.size());
  if (aes_) IMG_RETURN_IF_ERROR(aes_->Encrypt(start, cluster));
  // The table first: it must not end up between the cluster and the entry's limit.
  IMG_RETURN_IF_ERROR(TableForWriting(start));
  uint64_t host = AlignUp(store_->Size(), geometry_.cluster_size);
  IMG_RETURN_IF_ERROR(store_->WriteAt(host, cluster));
  return SetEntry(start, Entry{host});
}

Status QcowDriver::WriteInCluster(uint64_t offset, Bytes bytes) {
  std::vector<Entry> entries;
  IMG_RETURN_IF_ERROR(LoadEntries(offset, 1, &entries));
  Entry entry = entries[0];
  bool whole = bytes.size() == ClusterEnd(offset) - AlignDown(offset, geometry_.cluster_size);
  bool in_place = !entry.empty() && !entry.compressed() && IsAligned(entry.raw, kSector) &&
                  entry.raw < source_.Size();
  if (in_place) return WriteInPlace(entry, offset, bytes);
  // Data that cannot be read must not be mixed with new bytes; replacing all of it is fine.
  return WriteNewCluster(whole ? Entry{} : entry, offset, bytes);
}

Status QcowDriver::Write(uint64_t offset, Bytes bytes) {
  IMG_RETURN_IF_ERROR(RequireWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, bytes.size()));
  while (!bytes.empty()) {
    uint64_t length = std::min<uint64_t>(ClusterEnd(offset) - offset, bytes.size());
    IMG_RETURN_IF_ERROR(WriteInCluster(offset, bytes.first(length)));
    bytes = bytes.subspan(length);
    offset += length;
  }
  return Ok();
}

Status QcowDriver::WriteCompressed(uint64_t offset, Bytes bytes) {
  IMG_RETURN_IF_ERROR(RequireWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, bytes.size()));
  uint64_t size = geometry_.cluster_size;
  bool to_end = offset + bytes.size() == VirtualSize();
  if (!IsAligned(offset, size) || (!IsAligned(bytes.size(), size) && !to_end)) {
    return Error{ErrorCode::kInvalid, "compressed writes take whole clusters", offset};
  }
  while (!bytes.empty()) {
    uint64_t length = std::min<uint64_t>(size, bytes.size());
    ByteVector cluster(size);
    std::memcpy(cluster.data(), bytes.data(), length);
    // A stream would be stored in the clear, so encrypted images get plain clusters.
    std::optional<ByteVector> stream;
    if (!aes_) {
      IMG_ASSIGN_OR_RETURN(stream, DeflateRaw(cluster, size - 1));
    }
    if (stream) IMG_RETURN_IF_ERROR(TableForWriting(offset));
    uint64_t host = AlignUp(store_->Size(), kSector);
    if (!stream || host + size > CompressedLimit(geometry_)) {
      IMG_RETURN_IF_ERROR(WriteInCluster(offset, bytes.first(length)));
    } else {
      IMG_RETURN_IF_ERROR(store_->WriteAt(host, *stream));
      IMG_RETURN_IF_ERROR(SetEntry(offset, Entry::Compressed(geometry_, host, stream->size())));
    }
    bytes = bytes.subspan(length);
    offset += length;
  }
  return Ok();
}

Status QcowDriver::Zero(uint64_t offset, uint64_t length) {
  IMG_RETURN_IF_ERROR(RequireWritable());
  IMG_RETURN_IF_ERROR(CheckRange(offset, length));
  ByteVector zeros(geometry_.cluster_size);
  while (length > 0) {
    uint64_t part = std::min(ClusterEnd(offset) - offset, length);
    IMG_ASSIGN_OR_RETURN(BlockStatus status, StatusAt(offset, length));
    bool reads_zeros = status.state == MappingState::kUnallocated && !backing_name_;
    if (reads_zeros) {
      part = status.length;
    } else {
      IMG_RETURN_IF_ERROR(WriteInCluster(offset, Bytes(zeros).first(part)));
    }
    offset += part;
    length -= part;
  }
  return Ok();
}

Status QcowDriver::Publish() {
  if (pending_.empty()) return Ok();
  IMG_RETURN_IF_ERROR(store_->Sync());
  uint64_t l1_begin = header_.l1_table_offset, l1_end = l1_begin + geometry_.l1_bytes();
  ByteVector run;
  uint64_t run_at = 0;
  for (auto [at, value] : pending_) {
    // Entries that stand side by side go in one write, and no byte beside them.
    if (!run.empty() && at != run_at + run.size()) {
      IMG_RETURN_IF_ERROR(store_->WriteAt(run_at, run));
      run.clear();
    }
    if (run.empty()) run_at = at;
    bool little = l1_little_endian_ && at >= l1_begin && at < l1_end;
    run.resize(run.size() + 8);
    StoreBe(&run[run.size() - 8], little ? ByteSwap(value) : value);
  }
  IMG_RETURN_IF_ERROR(store_->WriteAt(run_at, run));
  pending_.clear();
  return Ok();
}

Status QcowDriver::UpdateXenChecksum() {
  if (!xen_ || !l1_changed_) return Ok();
  IMG_ASSIGN_OR_RETURN(xen_->checksum,
                       XenChecksum(source_, geometry_, header_.l1_table_offset, l1_little_endian_));
  uint8_t bytes[kXenHeaderLength];
  EncodeXenHeader(*xen_, bytes);
  IMG_RETURN_IF_ERROR(store_->WriteAt(kXenHeaderOffset, bytes));
  l1_changed_ = false;
  return Ok();
}

Status QcowDriver::Flush() {
  if (store_ == nullptr) return Ok();
  IMG_RETURN_IF_ERROR(Publish());
  IMG_RETURN_IF_ERROR(UpdateXenChecksum());
  return store_->Sync();
}

Status QcowDriver::Empty() {
  IMG_RETURN_IF_ERROR(RequireWritable());
  pending_.clear();
  uint64_t end = SaturatingAdd(header_.l1_table_offset, geometry_.l1_bytes());
  IMG_RETURN_IF_ERROR(store_->WriteZeros(header_.l1_table_offset, geometry_.l1_bytes()));
  l1_changed_ = true;
  IMG_RETURN_IF_ERROR(Flush());
  // Nothing points behind the table any more, but the backing file's name may stand there.
  if (backing_name_) {
    end = std::max(end, header_.backing_file_offset + header_.backing_file_size);
  }
  IMG_RETURN_IF_ERROR(store_->SetSize(end));
  return store_->Sync();
}

Status QcowDriver::SetBacking(const std::optional<BackingReference>& backing) {
  IMG_RETURN_IF_ERROR(RequireWritable());
  Header header = header_;
  std::string name = backing ? backing->name : std::string();
  if (name.size() > kMaxBackingNameLength || name.find('\0') != std::string::npos) {
    return Error{ErrorCode::kInvalid, "the backing file's name is too long", {}};
  }
  header.backing_file_offset = 0;
  header.backing_file_size = static_cast<uint32_t>(name.size());
  header.mtime = 0;              // as QEMU has it, which never looks
  IMG_RETURN_IF_ERROR(Flush());  // what was copied out of the old backing file
  if (!name.empty()) {
    // A new place for the name, so that a crash leaves one of the two names whole: the free space
    // before the L1 table when the old name is not there, else the end of the file.
    uint64_t front = kHeaderLength + (xen_ ? kXenHeaderLength : 0);
    bool fits =
        RangeFits(front, name.size(), header_.l1_table_offset) && !header_.has_backing_name();
    header.backing_file_offset = fits ? front : store_->Size();
    IMG_RETURN_IF_ERROR(store_->WriteAt(header.backing_file_offset, AsBytes(name)));
    IMG_RETURN_IF_ERROR(store_->Sync());
  }
  uint8_t bytes[kHeaderLength];
  EncodeHeader(header, bytes);
  // Offset, length and time stand side by side: one write changes all.
  IMG_RETURN_IF_ERROR(store_->WriteAt(8, Bytes(bytes).subspan(8, 16)));
  IMG_RETURN_IF_ERROR(store_->Sync());
  header_ = header;
  backing_name_ = backing && !name.empty() ? std::optional(name) : std::nullopt;
  return Ok();
}

}  // namespace imgfsck::qcow1
