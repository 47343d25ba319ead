// SPDX-License-Identifier: Apache-2.0
// Guest I/O on qcow version 1 images: plain, compressed, AES and tapdisk variants.
//
// Writing (sheet qcow1, section 5): new clusters and new L2 tables go to the end of the file and
// become durable before any table entry names them; entries wait in memory until the next flush, so
// a crash leaves the old mapping, or the new one, and unreferenced bytes behind it. A partly
// written new cluster is filled from the backing file.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/common/legacy_aes.h"
#include "formats/format.h"
#include "formats/qcow1/image.h"

namespace imgfsck::qcow1 {

class QcowDriver : public Driver {
 public:
  static Result<std::unique_ptr<Driver>> Open(const ByteSource& source, ByteStore* store,
                                              const OpenOptions& options);

  std::string_view format() const override { return "qcow"; }
  uint64_t VirtualSize() const override { return geometry_.virtual_size; }
  uint64_t ClusterSize() const override { return geometry_.cluster_size; }
  Capabilities capabilities() const override;
  std::optional<BackingReference> Backing() const override;
  void SetBackingReader(BackingReader reader) override { backing_ = std::move(reader); }

  Status Read(uint64_t offset, MutableBytes buffer) override;
  Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) override;
  Status Write(uint64_t offset, Bytes bytes) override;
  Status WriteCompressed(uint64_t offset, Bytes bytes) override;
  Status Zero(uint64_t offset, uint64_t length) override;
  Status Flush() override;
  Status Empty() override;
  Status SetBacking(const std::optional<BackingReference>& backing) override;

 private:
  QcowDriver(const ByteSource& source, ByteStore* store) : source_(source), store_(store) {}
  Status CheckRange(uint64_t offset, uint64_t length) const;
  uint64_t ClusterEnd(uint64_t offset) const;  // cut at the end of the disk

  // Lookup. Entries that wait to be written count.
  Result<uint64_t> L1Entry(uint64_t index) const;
  // The L2 table below guest `offset`: 0 when there is none; damage is an error.
  Result<uint64_t> TableFor(uint64_t offset) const;
  // `offset` is below no table: where the next one's guest range begins, `end` when that is first.
  Result<uint64_t> NextMapped(uint64_t offset, uint64_t end) const;
  // Entries of the clusters from `offset` on: at most `count`, at least one, of one table.
  Status LoadEntries(uint64_t offset, uint64_t count, std::vector<Entry>* entries) const;

  // Reading. `entry` is that of the cluster that `offset` lies in.
  Status ReadUnmapped(uint64_t offset, MutableBytes buffer) const;
  Status ReadPlain(Entry entry, uint64_t offset, MutableBytes buffer) const;
  Status ReadCompressed(Entry entry, uint64_t offset, MutableBytes buffer) const;
  Status ReadPart(Entry entry, uint64_t offset, MutableBytes buffer) const;

  // Writing; `offset` and the bytes lie in one cluster.
  Status RequireWritable() const;
  Status WriteInCluster(uint64_t offset, Bytes bytes);
  Status WriteInPlace(Entry entry, uint64_t offset, Bytes bytes);
  Status WriteNewCluster(Entry old, uint64_t offset, Bytes bytes);
  // Before the first allocation: completes what the end of the file cuts in two, and refuses when
  // entries point behind it, lest they come to show what is stored there.
  Status PrepareToGrow();
  Result<uint64_t> TableForWriting(uint64_t offset);
  Status SetEntry(uint64_t offset, Entry entry);
  Status Publish();  // what entries refer to is made durable, then the entries are written
  Status UpdateXenChecksum();

  const ByteSource& source_;
  ByteStore* store_;  // null: read-only
  Header header_;
  std::optional<XenHeader> xen_;
  Geometry geometry_;
  bool l1_little_endian_ = false;
  std::optional<std::string> backing_name_;
  std::optional<LegacyAes> aes_;
  BackingReader backing_;
  std::map<uint64_t, uint64_t> pending_;  // host offset of an entry -> its new value
  bool may_grow_ = false;                 // PrepareToGrow() has been through
  bool l1_changed_ = false;               // since the tapdisk checksum was computed
};

extern const Format kFormat;

}  // namespace imgfsck::qcow1
