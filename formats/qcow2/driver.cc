// SPDX-License-Identifier: Apache-2.0
// The Driver interface over Core and the operations.
#include "formats/qcow2/driver.h"

#include <algorithm>

#include "formats/qcow2/bitmap_ops.h"
#include "formats/qcow2/driver_core.h"
#include "formats/qcow2/driver_read.h"
#include "formats/qcow2/driver_write.h"
#include "formats/qcow2/snapshot_ops.h"

namespace imgfsck::qcow2 {
namespace {

class Qcow2Driver : public Driver {
 public:
  explicit Qcow2Driver(std::unique_ptr<Core> core) : core_(std::move(core)) {}

  std::string_view format() const override { return "qcow2"; }
  uint64_t VirtualSize() const override { return core_->size; }
  uint64_t ClusterSize() const override { return core_->g().cluster_size; }
  Capabilities capabilities() const override;
  std::optional<BackingReference> Backing() const override;
  void SetBackingReader(BackingReader reader) override { core_->backing = std::move(reader); }

  Status Read(uint64_t offset, MutableBytes buffer) override {
    IMG_RETURN_IF_ERROR(CheckRange(offset, buffer.size()));
    return ReadGuest(*core_, offset, buffer);
  }
  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override {
    IMG_RETURN_IF_ERROR(CheckRange(offset, 1));
    return GuestStatus(*core_, offset, std::max<uint64_t>(limit, 1));
  }

  Status Write(uint64_t offset, Bytes bytes) override {
    return Change(offset, bytes.size(), [&] { return WriteGuest(*core_, offset, bytes); });
  }
  Status WriteCompressed(uint64_t offset, Bytes bytes) override {
    return Change(offset, bytes.size(), [&] { return CompressGuest(*core_, offset, bytes); });
  }
  Status Zero(uint64_t offset, uint64_t length) override {
    return Change(offset, length, [&] { return ZeroGuest(*core_, offset, length); });
  }
  Status Discard(uint64_t offset, uint64_t length) override {
    return Change(offset, length, [&] { return DiscardGuest(*core_, offset, length); });
  }
  Status Flush() override { return core_->Finish(core_->Flush()); }
  Status Close() override { return core_->Finish(core_->Close()); }
  Status Resize(uint64_t size) override {
    return Edit([&] { return ResizeGuest(*core_, size); });
  }
  Status Empty() override {
    return Edit([&] { return EmptyGuest(*core_); });
  }
  Status SetBacking(const std::optional<BackingReference>& backing) override {
    return Edit([&] { return ChangeBacking(*core_, backing); });
  }

  std::vector<SnapshotInfo> Snapshots() const override { return ListSnapshots(*core_); }
  Status SnapshotCreate(std::string_view name) override {
    return Edit([&] { return CreateSnapshot(*core_, name); });
  }
  Status SnapshotApply(std::string_view name_or_id) override {
    return Edit([&] { return ApplySnapshot(*core_, name_or_id); });
  }
  Status SnapshotDelete(std::string_view name_or_id) override {
    return Edit([&] { return DeleteSnapshot(*core_, name_or_id); });
  }

  std::vector<BitmapInfo> Bitmaps() const override { return core_->bitmaps->List(); }
  Status BitmapAdd(std::string_view name, uint64_t granularity, bool enabled) override {
    return Edit([&] { return core_->bitmaps->Add(name, granularity, enabled); });
  }
  Status BitmapRemove(std::string_view name) override {
    return Edit([&] { return core_->bitmaps->Remove(name); });
  }
  Status BitmapClear(std::string_view name) override {
    return Edit([&] { return core_->bitmaps->Clear(name); });
  }
  Status BitmapSetEnabled(std::string_view name, bool enabled) override {
    return Edit([&] { return core_->bitmaps->SetEnabled(name, enabled); });
  }
  Status BitmapMerge(std::string_view target, std::string_view source) override {
    return Edit([&] { return core_->bitmaps->Merge(target, source); });
  }
  Result<std::vector<GuestRange>> BitmapDirty(std::string_view name) override {
    return core_->bitmaps->Dirty(name);
  }

 private:
  Status CheckRange(uint64_t offset, uint64_t length) const {
    if (RangeFits(offset, length, core_->size)) return Ok();
    return Error{ErrorCode::kInvalid, "the range does not lie inside the disk", {}};
  }
  template <class Operation>
  Status Edit(const Operation& operation) {
    auto begun = core_->BeginWriting();
    return core_->Finish(begun ? operation() : begun);
  }
  template <class Operation>
  Status Change(uint64_t offset, uint64_t length, const Operation& operation) {
    IMG_RETURN_IF_ERROR(CheckRange(offset, length));
    if (length == 0) return Ok();
    return Edit([&]() -> Status {
      core_->bitmaps->Mark(offset, length);  // also when the operation fails half way
      IMG_RETURN_IF_ERROR(operation());
      return core_->FlushIfFull();
    });
  }

  std::unique_ptr<Core> core_;
};

Capabilities Qcow2Driver::capabilities() const {
  Capabilities can;
  if (!core_->writable) return can;
  can.write = can.zero = can.discard = can.grow = can.shrink = true;
  bool plain = core_->cipher == nullptr && !core_->context.data_file;
  can.compressed_write = plain;
  can.snapshots = !core_->context.data_file;
  can.bitmaps = core_->header.is_v3();
  // Version 2 cannot say of a snapshot how large its disk was.
  if (!core_->header.is_v3() && !core_->snapshots.empty()) can.grow = can.shrink = false;
  return can;
}

std::optional<BackingReference> Qcow2Driver::Backing() const {
  const Image& image = *core_->image;
  if (core_->header.backing_file_offset == 0 || !image.backing_name) return std::nullopt;
  BackingReference reference{*image.backing_name, {}};
  reference.format = image.backing_format.value_or("");
  return reference;
}

}  // namespace

Result<std::unique_ptr<Driver>> OpenDriver(const ByteSource& source, ByteStore* store,
                                           const OpenOptions& options) {
  IMG_ASSIGN_OR_RETURN(auto core, Core::Open(source, store, options));
  return std::unique_ptr<Driver>(new Qcow2Driver(std::move(core)));
}

Result<std::optional<std::string>> DataFileName(const ByteSource& source) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source));
  if (image->header.magic != kMagic || !image->walkable || !image->has_data_file()) {
    return std::optional<std::string>();
  }
  return std::optional<std::string>(image->data_file_name.value_or(""));
}

}  // namespace imgfsck::qcow2
