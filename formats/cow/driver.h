// SPDX-License-Identifier: Apache-2.0
// Guest I/O on COW images of every layout, written as found.
//
// Writing (sheet cow, section 5): whole sectors go to their place, become durable, and only then
// are their bits set; bits wait in memory until the next flush and are never cleared. A lost bit
// shows the old bytes; a bit without its data never happens. Part of a sector that is not stored
// yet is filled from the backing file.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/cow/image.h"
#include "formats/format.h"

namespace imgfsck::cow {

class CowDriver : public Driver {
 public:
  static Result<std::unique_ptr<Driver>> Open(const ByteSource& source, ByteStore* store,
                                              const OpenOptions& options);

  std::string_view format() const override { return "cow"; }
  uint64_t VirtualSize() const override { return geometry_.virtual_size; }
  uint64_t ClusterSize() const override { return geometry_.sector_size; }
  Capabilities capabilities() const override;
  std::optional<BackingReference> Backing() const override;
  void SetBackingReader(BackingReader reader) override { backing_ = std::move(reader); }

  Status Read(uint64_t offset, MutableBytes buffer) override;
  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override;
  Status Write(uint64_t offset, Bytes bytes) override;
  Status Zero(uint64_t offset, uint64_t length) override;
  Status Flush() override;
  Status Empty() override;
  Status SetBacking(const std::optional<BackingReference>& backing) override;

 private:
  CowDriver(const ByteSource& source, ByteStore* store, const Header& header)
      : source_(source), store_(store), header_(header), geometry_(header.geometry()) {}
  Status CheckRange(uint64_t offset, uint64_t length) const;
  // The run at a sector, cut at `last`; bits that wait to be written count.
  Result<Run> RunAt(uint64_t first, uint64_t last) const;
  uint8_t WaitingBits(uint64_t bitmap_byte) const;
  Status ReadStored(uint64_t offset, MutableBytes buffer) const;
  Status ReadBase(uint64_t offset, MutableBytes buffer) const;
  Status RequireWritable(uint64_t offset, uint64_t length) const;
  Status FillSector(uint64_t sector, MutableBytes buffer);
  Status Publish();  // the data becomes durable, then the bits are written

  const ByteSource& source_;
  ByteStore* store_;  // null: read-only
  Header header_;
  Geometry geometry_;
  BackingReader backing_;
  std::map<uint64_t, uint8_t> pending_;  // bitmap byte -> bits to set
};

extern const Format kFormat;

}  // namespace imgfsck::cow
