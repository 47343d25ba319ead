// SPDX-License-Identifier: Apache-2.0
// What repair passes of qcow2 images write with: entries, counts and fresh clusters in an overlay.
// Knows the image as the last check saw it and follows its own changes. Fresh space is taken only
// where the image counts nothing, nothing refers to and the file holds zeros, else behind the end.
#pragma once

#include <optional>
#include <set>
#include <unordered_set>
#include <vector>

#include "analyzers/qcow2/state.h"
#include "io/overlay.h"

namespace imgfsck::qcow2 {

class Editor {
 public:
  Editor(Overlay& overlay, const CheckState& state);

  const Image& image() const { return image_; }
  const Geometry& geometry() const { return image_.geometry; }
  uint64_t cluster_size() const { return image_.geometry.cluster_size; }

  Status Write(uint64_t offset, Bytes bytes) { return overlay_.WriteAt(offset, bytes); }
  Status Write64(uint64_t offset, uint64_t value);
  Status Write32(uint64_t offset, uint32_t value);
  Status Read(uint64_t offset, MutableBytes bytes) const {
    return ReadPadded(overlay_, offset, bytes);
  }

  // `count` clusters in a row, zeroed, each with a stored count of 1. Returns the host offset.
  Result<uint64_t> Allocate(uint64_t count = 1);
  // The same without touching the counts: for a rebuild of the counts themselves.
  Result<uint64_t> Reserve(uint64_t count);
  // Stores a count, making the refcount block (and table) that it needs. A block that shares its
  // cluster, and whose bytes are no counts, is moved first: they are guest data. kTooLarge when the
  // value does not fit the width.
  Status SetCount(uint64_t cluster, uint64_t value);
  // Copies refcount block `index` to a fresh cluster, which counts from now on. The old one keeps
  // its bytes. Returns the new cluster.
  Result<uint64_t> MoveBlock(uint64_t index);
  // Bytes of fresh space taken so far.
  uint64_t allocated_bytes() const { return allocated_bytes_; }
  uint64_t end() const { return end_; }  // bytes; where the next cluster behind the end would go

  // Moves on to refcount structures elsewhere (a rebuild); entries as stored on disk.
  void UseRefcountTable(uint64_t offset, std::vector<uint64_t> entries);

 private:
  bool IsFree(uint64_t cluster);
  bool ReadByTheGuest(uint64_t block);
  Result<uint64_t> BlockFor(uint64_t index);
  Status GrowTable(uint64_t index);

  Overlay& overlay_;
  const CheckState& state_;
  const Image& image_;
  uint64_t table_offset_;
  std::vector<uint64_t> table_;
  uint64_t next_free_ = 1;  // cluster where the search for free space goes on
  uint64_t search_left_ = 1 << 16;
  uint64_t end_;
  uint64_t allocated_bytes_ = 0;
  std::set<uint64_t> own_blocks_;  // refcount blocks that may be written where they are
  std::set<uint64_t> taken_;       // clusters given out below the old end
  // Places of what stands where L2 tables should; gathered when first asked for.
  std::optional<std::unordered_set<uint64_t>> implausible_;
};

}  // namespace imgfsck::qcow2
