// SPDX-License-Identifier: Apache-2.0
// A quick look at a file under one idea of how it is laid out: do the refcount structures count
// themselves, does the L1 table lead to L2 tables, do their entries lead to counted clusters? A
// look samples and reads little, so that hundreds of ideas can be tried; trial.h then counts
// everything.
#pragma once

#include <optional>
#include <vector>

#include "formats/qcow2/entry.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

// What a header would say of the tables.
struct Layout {
  unsigned cluster_bits = 16, refcount_order = 4;
  bool extended_l2 = false, data_file = false;
  uint64_t rt_offset = 0, rt_clusters = 0;  // refcount table; 0: none
  uint64_t l1_offset = 0, l1_entries = 0;

  Geometry geometry() const { return Geometry::Make(cluster_bits, extended_l2, refcount_order); }
  bool has_tree() const { return rt_offset != 0; }
  friend bool operator==(const Layout&, const Layout&) = default;
};

// Of so many things asked, so many were as they should be.
struct Look {
  uint64_t asked = 0, held = 0;
  void Ask(bool good) {
    ++asked;
    held += good;
  }
  bool Mostly() const { return asked > 0 && held * 4 >= asked * 3; }
};
struct MapLook {
  Look table;  // the L1 table's own clusters and entries
  Look below;  // entries of L2 tables
};

// Small reads with a small memory. What cannot be read is zero.
class PageReader {
 public:
  explicit PageReader(const ByteSource& source) : source_(source), pages_(kPages) {}
  const ByteSource& source() const { return source_; }
  void Read(uint64_t offset, MutableBytes buffer);
  uint64_t Word(uint64_t offset);  // big-endian, aligned to 8

 private:
  static constexpr uint64_t kPage = 4096, kPages = 512;
  struct Page {
    uint64_t number = ~uint64_t{0};
    ByteVector bytes;
  };
  const Page& Get(uint64_t number);
  const ByteSource& source_;
  std::vector<Page> pages_;
};

class Lens {
 public:
  explicit Lens(const ByteSource& source) : reader_(source), size_(source.Size()) {}
  PageReader& reader() { return reader_; }
  uint64_t file_size() const { return size_; }

  // The stored count; 0 where no block counts the cluster.
  uint64_t Count(const Layout& layout, uint64_t cluster);
  // Header, refcount table and blocks are counted once each.
  Look Tree(const Layout& layout);
  // The L1 table, some of its entries and some of the entries below them.
  MapLook Map(const Layout& layout);

  // An L1 entry that could be one; 0 is none.
  bool PlausibleL1(const Layout& layout, uint64_t value);
  // An L2 entry of the guest cluster at `guest` that could be one.
  bool PlausibleL2(const Layout& layout, const Entry& entry, uint64_t guest);
  // Clusters that a refcount table needs for this file.
  uint64_t TableClusters(const Layout& layout) const;

 private:
  bool InFile(const Layout& layout, uint64_t offset) const {
    return offset != 0 && offset < size_ && IsAligned(offset, uint64_t{1} << layout.cluster_bits);
  }
  void LookAtTable(const Layout& layout, uint64_t index, uint64_t table, Look* look);

  PageReader reader_;
  uint64_t size_;
};

}  // namespace imgfsck::qcow2
