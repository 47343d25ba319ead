// SPDX-License-Identifier: Apache-2.0
#include "formats/raw/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "formats/raw/rows.h"

namespace imgfsck::raw {
namespace {

class RawDriver : public Driver {
 public:
  RawDriver(const ByteSource& source, ByteStore* store) : source_(source), store_(store) {}

  std::string_view format() const override { return "raw"; }
  uint64_t VirtualSize() const override { return VirtualSizeOf(bytes().Size()); }
  uint64_t ClusterSize() const override { return kSector; }
  Capabilities capabilities() const override {
    Capabilities can;
    can.write = can.zero = can.discard = can.grow = can.shrink = store_ != nullptr;
    return can;
  }
  void SetBackingReader(BackingReader) override {}  // every byte is there: nothing to ask it for

  Status Read(uint64_t offset, MutableBytes buffer) override {
    IMG_RETURN_IF_ERROR(CheckRange(offset, buffer.size()));
    return ReadPadded(bytes(), offset, buffer);
  }

  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override {
    IMG_RETURN_IF_ERROR(CheckRange(offset, 1));
    const uint64_t longest = std::min(std::max<uint64_t>(limit, 1), VirtualSize() - offset);
    if (offset >= bytes().Size()) return BlockStatus{longest, MappingState::kZero, offset};
    IMG_ASSIGN_OR_RETURN(HostExtent extent, bytes().ExtentAt(offset));
    const uint64_t length =
        std::clamp<uint64_t>(extent.offset + extent.length - offset, 1, longest);
    return BlockStatus{length, extent.hole ? MappingState::kZero : MappingState::kData, offset};
  }

  Status Write(uint64_t offset, Bytes bytes) override {
    IMG_RETURN_IF_ERROR(CheckWrite(offset, bytes.size()));
    return bytes.empty() ? Ok() : store_->WriteAt(offset, bytes);
  }
  Status Zero(uint64_t offset, uint64_t length) override {
    IMG_RETURN_IF_ERROR(CheckWrite(offset, length));
    const uint64_t size = store_->Size();
    if (offset >= size) return Ok();  // the last sector's missing bytes: zeros already
    return store_->WriteZeros(offset, std::min(length, size - offset));
  }
  Status Discard(uint64_t offset, uint64_t length) override { return Zero(offset, length); }
  Status Flush() override { return store_ == nullptr ? Ok() : store_->Sync(); }
  Status Resize(uint64_t virtual_size) override {
    IMG_RETURN_IF_ERROR(CheckWrite(0, 0));
    return store_->SetSize(virtual_size);
  }

 private:
  const ByteSource& bytes() const { return store_ != nullptr ? *store_ : source_; }
  Status CheckRange(uint64_t offset, uint64_t length) const {
    if (RangeFits(offset, length, VirtualSize())) return Ok();
    return Error{ErrorCode::kInvalid,
                 fmt::format("{} bytes at {} reach past the end of the disk", length, offset),
                 {}};
  }
  Status CheckWrite(uint64_t offset, uint64_t length) const {
    if (store_ == nullptr) {
      return Error{ErrorCode::kPermission, "the image was opened for reading only", {}};
    }
    return CheckRange(offset, length);
  }

  const ByteSource& source_;
  ByteStore* store_;  // null: read-only
};

}  // namespace

Result<std::unique_ptr<Driver>> OpenDriver(const ByteSource& source, ByteStore* store,
                                           const OpenOptions& options) {
  if (!options.snapshot.empty()) {
    return Error{ErrorCode::kNotFound, "a raw image has no snapshots", {}};
  }
  return std::make_unique<RawDriver>(source, options.writable ? store : nullptr);
}

Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  for (const auto& [name, value] : options) {
    if (name == "preallocation" && (value == "off" || value == "")) continue;
    return Error{
        ErrorCode::kUnsupported, fmt::format("a raw image has no option {}={}", name, value), {}};
  }
  IMG_RETURN_IF_ERROR(store.SetSize(virtual_size));
  return store.Sync();
}

}  // namespace imgfsck::raw
