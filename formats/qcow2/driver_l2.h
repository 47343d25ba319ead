// SPDX-License-Identifier: Apache-2.0
// The L2 tables in memory. Changed tables stay until they are written; others go when there are too
// many. Getting tables is safe from several threads; everything else needs the image for itself.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "formats/qcow2/driver_cluster.h"
#include "formats/qcow2/driver_file.h"

namespace imgfsck::qcow2 {

class L2Table {
 public:
  L2Table(const Geometry& g, uint64_t offset) : geometry_(g), offset_(offset) {
    bytes_.resize(g.cluster_size);
  }
  Entry At(uint64_t index) const { return LoadEntry(geometry_, bytes_, index); }
  void Set(uint64_t index, const Entry& entry) {
    StoreEntry(geometry_, bytes_, index, entry);
    dirty_ = true;
  }
  uint64_t offset() const { return offset_; }
  bool dirty() const { return dirty_; }
  MutableBytes bytes() { return bytes_; }

 private:
  friend class L2Cache;
  Geometry geometry_;
  uint64_t offset_;  // in the file
  ByteVector bytes_;
  bool dirty_ = false;
  uint64_t used_ = 0;
};

class L2Cache {
 public:
  L2Cache(DriverFile* file, const Geometry& g, uint64_t limit_bytes);

  // kInvalid for an offset at which no table can be.
  Result<std::shared_ptr<L2Table>> Get(uint64_t offset);
  // A table for a newly allocated cluster: a copy of `from`, or empty. Dirty.
  std::shared_ptr<L2Table> Make(uint64_t offset, const L2Table* from);
  // The cluster is no table any more: forgets it, changes included.
  void Drop(uint64_t offset);

  bool HasDirty() const;
  bool TooManyDirty() const;  // time for a flush
  Status WriteDirty();        // ascending; without sync

 private:
  void Evict();
  DriverFile* file_;
  Geometry geometry_;
  size_t limit_;  // tables
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<L2Table>> tables_;
  uint64_t clock_ = 0;
};

}  // namespace imgfsck::qcow2
