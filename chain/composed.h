// SPDX-License-Identifier: Apache-2.0
// The driver interface over a whole chain: reads and changes go to the image itself, which asks its
// backing file for what it does not have; questions about where data is are answered for all
// layers.
#pragma once

#include "chain/chain.h"

namespace imgfsck {

// What a driver over `base` reads where it has nothing; zeros behind the base's end.
Driver::BackingReader ReaderOver(Driver& base);

class ComposedDriver : public Driver {
 public:
  explicit ComposedDriver(Chain* chain) : chain_(*chain) {}

  std::string_view format() const override { return top().format(); }
  uint64_t VirtualSize() const override { return top().VirtualSize(); }
  uint64_t ClusterSize() const override { return top().ClusterSize(); }
  Capabilities capabilities() const override { return top().capabilities(); }
  std::optional<BackingReference> Backing() const override { return top().Backing(); }
  void SetBackingReader(BackingReader) override {}  // it has what it needs

  Status Read(uint64_t offset, MutableBytes buffer) override { return top().Read(offset, buffer); }
  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override;

  Status Write(uint64_t offset, Bytes bytes) override { return top().Write(offset, bytes); }
  Status WriteCompressed(uint64_t offset, Bytes bytes) override {
    return top().WriteCompressed(offset, bytes);
  }
  Status Zero(uint64_t offset, uint64_t length) override { return top().Zero(offset, length); }
  Status Discard(uint64_t offset, uint64_t length) override {
    return top().Discard(offset, length);
  }
  Status Flush() override { return top().Flush(); }
  Status Close() override { return top().Close(); }
  // What a longer backing file holds behind the old end does not show up.
  Status Resize(uint64_t virtual_size) override;
  Status Empty() override { return top().Empty(); }
  Status SetBacking(const std::optional<BackingReference>& backing) override {
    return top().SetBacking(backing);
  }

  std::vector<SnapshotInfo> Snapshots() const override { return top().Snapshots(); }
  Status SnapshotCreate(std::string_view name) override { return top().SnapshotCreate(name); }
  Status SnapshotApply(std::string_view name) override { return top().SnapshotApply(name); }
  Status SnapshotDelete(std::string_view name) override { return top().SnapshotDelete(name); }
  std::vector<BitmapInfo> Bitmaps() const override { return top().Bitmaps(); }
  Status BitmapAdd(std::string_view name, uint64_t granularity, bool enabled) override {
    return top().BitmapAdd(name, granularity, enabled);
  }
  Status BitmapRemove(std::string_view name) override { return top().BitmapRemove(name); }
  Status BitmapClear(std::string_view name) override { return top().BitmapClear(name); }
  Status BitmapSetEnabled(std::string_view name, bool enabled) override {
    return top().BitmapSetEnabled(name, enabled);
  }
  Status BitmapMerge(std::string_view target, std::string_view source) override {
    return top().BitmapMerge(target, source);
  }
  Result<std::vector<GuestRange>> BitmapDirty(std::string_view name) override {
    return top().BitmapDirty(name);
  }

 private:
  Driver& top() const { return *chain_.layers().front()->driver; }
  Chain& chain_;
};

}  // namespace imgfsck
