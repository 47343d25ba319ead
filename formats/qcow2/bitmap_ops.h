// SPDX-License-Identifier: Apache-2.0
// The persistent bitmaps of an open image (sheet, section 9): kept right while we write, marked as
// in use on disk meanwhile, and stored when the session ends. A bitmap that somebody else left in
// use stays as it is; it can only be removed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/qcow2/bitmap_bits.h"
#include "formats/qcow2/driver_core.h"

namespace imgfsck::qcow2 {

class BitmapStore {
 public:
  explicit BitmapStore(Core* core) : core_(core) {}

  std::vector<BitmapInfo> List() const;
  Result<std::vector<GuestRange>> Dirty(std::string_view name);

  // For Core: loads all usable bitmaps and marks them on disk; stores them.
  Status BeginWriting();
  Status Save();

  void Mark(uint64_t offset, uint64_t length);  // guest bytes written
  void MarkAll() { Mark(0, UINT64_MAX); }
  void Resize(uint64_t size);

  // After Core::BeginWriting().
  Status Add(std::string_view name, uint64_t granularity, bool enabled);
  Status Remove(std::string_view name);
  Status Clear(std::string_view name);
  Status SetEnabled(std::string_view name, bool enabled);
  Status Merge(std::string_view target, std::string_view source);

 private:
  struct Live {
    Bitmap entry;                    // as it will be written, but for its table
    BitmapBits bits;                 // nothing for a stale one
    bool stale = false;              // left in use by somebody else: contents unusable
    std::vector<uint64_t> clusters;  // of its table and data on disk
  };
  Status LoadAll();
  Status Load(Live* live, uint64_t* budget) const;
  Status CollectClusters(Live* live) const;
  Result<ByteVector> ReadTable(const Bitmap& entry) const;
  Status MarkInUse();
  Result<Live*> Find(std::string_view name);
  Status StoreBits(Live* live, std::vector<uint64_t>* clusters);
  Result<BitmapsExtension> StoreDirectory();
  Status Publish(const std::optional<BitmapsExtension>& extension);
  bool consistent() const { return core_->header.Autoclear(kAutoclearBitmaps); }
  uint64_t DiskSize() const;

  Core* core_;
  bool loaded_ = false;
  std::vector<Live> live_;
  std::vector<uint64_t> garbage_;  // clusters of removed bitmaps
};

}  // namespace imgfsck::qcow2
