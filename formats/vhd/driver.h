// SPDX-License-Identifier: Apache-2.0
// Guest I/O on fixed, dynamic and differencing VHDs. Strict: opens only what it cannot misread, and
// for writing only what has no open damage. Writing order (sheet §9), so that a crash at any point
// leaks space at worst: new footer behind the grown file, sync, bitmap and data over the old
// footer, sync, block table entry.
#pragma once

#include <memory>

#include "formats/driver.h"
#include "formats/vhd/image.h"

namespace imgfsck::vhd {

class VhdDriver : public Driver {
 public:
  static Result<std::unique_ptr<Driver>> Open(const ByteSource& source, ByteStore* store,
                                              const OpenOptions& options);

  std::string_view format() const override { return "vpc"; }
  uint64_t VirtualSize() const override { return size_; }
  uint64_t ClusterSize() const override { return sparse() ? image_->block_size : kSectorSize; }
  Capabilities capabilities() const override;
  std::optional<BackingReference> Backing() const override;
  void SetBackingReader(BackingReader reader) override { backing_ = std::move(reader); }

  Status Read(uint64_t offset, MutableBytes buffer) override;
  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override;
  Status Write(uint64_t offset, Bytes bytes) override;
  Status Zero(uint64_t offset, uint64_t length) override;
  Status Discard(uint64_t offset, uint64_t length) override;
  Status Flush() override;
  Status Resize(uint64_t virtual_size) override;

 private:
  VhdDriver(std::unique_ptr<Image> image, ByteStore* store);
  bool sparse() const { return image_->sparse(); }
  bool differencing() const { return image_->kind == Kind::kDifferencing; }
  // What sectors are that the file has nothing for.
  MappingState Elsewhere() const {
    return differencing() ? MappingState::kUnallocated : MappingState::kZero;
  }
  Status CheckRange(uint64_t offset, uint64_t length) const;
  Status CheckWritable() const;

  // Reading (driver.cc).
  Result<uint64_t> BlockStart(uint64_t index) const;  // file offset of its bitmap; kNoOffset: none
  Result<ByteVector> BitmapOf(uint64_t start) const;
  Status ReadBlock(uint64_t index, uint64_t within, MutableBytes buffer) const;
  Status ReadUnallocated(uint64_t offset, MutableBytes buffer) const;

  // Writing (write.cc). `within` and lengths are inside one block.
  Status WriteSparse(uint64_t offset, Bytes bytes);
  Status WriteBlock(uint64_t start, uint64_t within, Bytes bytes);
  Status MarkWritten(uint64_t start, ByteVector* bitmap, uint64_t within, uint64_t length);
  Status AllocateBlocks(GuestRange guest, Bytes bytes);
  Status FillBlock(uint64_t start, GuestRange guest, Bytes bytes);
  Status MoveFooter(uint64_t offset);
  Status ZeroBlock(uint64_t index, uint64_t within, uint64_t length);
  Status ZeroAllocated(uint64_t start, uint64_t within, uint64_t length);
  Result<bool> BackingIsZero(uint64_t offset, uint64_t length) const;

  // Growing (resize.cc).
  Status ResizeFixed(Footer footer);
  Status ResizeSparse(Footer footer);
  Status ClearTail();
  Status GrowTable(uint64_t entries);
  Status MoveTable(uint64_t entries);
  bool TableHasRoom(uint64_t entries) const;

  std::unique_ptr<Image> image_;
  ByteStore* store_;        // null when read-only
  uint64_t size_;           // bytes of the guest's disk
  uint64_t footer_offset_;  // of the trailing footer
  BackingReader backing_;
};

}  // namespace imgfsck::vhd
