// SPDX-License-Identifier: Apache-2.0
// A writable view of a source that leaves the source untouched. Repair passes write into one; the
// check runs on it again; only a transaction carries its patches over. Overlays stack: a pass works
// in an overlay above the plan's overlay and is merged down or thrown away as a whole.
//
// Changed pages (4 KiB) are kept in memory up to a limit and beyond it in an unlinked file in
// TMPDIR, private to the process.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "io/byte_source.h"

namespace imgfsck {

struct OverlayOptions {
  uint64_t memory_limit = 64 * kMiB;  // bytes of pages kept in memory before spilling
  std::string spill_directory;        // empty: TMPDIR, else /tmp
};

class Overlay : public ByteStore {
 public:
  static constexpr uint64_t kPage = 4096;  // bytes

  explicit Overlay(const ByteSource& base, OverlayOptions options = {});  // base is not owned
  ~Overlay() override;

  uint64_t Size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override;
  void Prefetch(uint64_t offset, uint64_t length) const override;
  Status WriteAt(uint64_t offset, Bytes bytes) override;
  // Shrinking then growing again reads zeros in between, as a file would.
  Status SetSize(uint64_t size) override;
  Status Sync() override { return Ok(); }

  const ByteSource& base() const { return base_; }
  bool Changed() const;        // some byte, or the size, was written
  uint64_t PagesHeld() const;  // memory and spill file together, in pages

  // The bytes that really differ from the base, in ascending order, never more than 1 MiB a call,
  // never touching one another unless split by that bound. `old_bytes` is shorter than `new_bytes`
  // (or empty) where the base ends before; there, zeros that the new size brings by itself are no
  // patch. Ranges past the new size are not reported.
  using PatchVisitor = std::function<Status(uint64_t offset, Bytes old_bytes, Bytes new_bytes)>;
  Status ForEachPatch(const PatchVisitor& visit) const;
  // Host ranges of pages written since creation, ascending and merged (page granularity).
  std::vector<HostRange> TouchedRanges() const;
  // Takes over what `other`, an overlay whose base is this one, has changed.
  Status Absorb(const Overlay& other);

 private:
  struct Impl;
  HostRange NextSuspect(uint64_t from) const;
  const ByteSource& base_;
  uint64_t size_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace imgfsck
