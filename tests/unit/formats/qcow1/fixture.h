// SPDX-License-Identifier: Apache-2.0
// A qcow version 1 image built by hand, structure by structure; guest order differs from host order
// as the test adds clusters.
#pragma once

#include <algorithm>
#include <string>

#include "formats/common/deflate.h"
#include "formats/qcow1/header.h"
#include "io/byte_source.h"

namespace imgfsck::qcow1 {

struct Fixture {
  Header header;
  ByteVector bytes;

  // Room for the L1 table at 64, tables and clusters behind it.
  explicit Fixture(uint64_t size = 4 * kMiB, unsigned cluster_bits = 12, unsigned l2_bits = 6) {
    header.size = size;
    header.cluster_bits = static_cast<uint8_t>(cluster_bits);
    header.l2_bits = static_cast<uint8_t>(l2_bits);
    header.l1_table_offset = 64;
    bytes.resize(64 + geometry().l1_bytes());
    WriteHeader();
  }

  Geometry geometry() const { return GeometryOf(header); }
  void WriteHeader() { EncodeHeader(header, bytes); }

  uint64_t Append(Bytes content, uint64_t alignment) {
    uint64_t at = AlignUp(bytes.size(), alignment);
    bytes.resize(at);
    bytes.insert(bytes.end(), content.begin(), content.end());
    return at;
  }
  uint64_t L1At(uint64_t slot) const { return header.l1_table_offset + 8 * slot; }
  uint64_t L1(uint64_t slot) const { return BeAt<uint64_t>(bytes, L1At(slot)); }
  void SetL1(uint64_t slot, uint64_t value) { PutBe(bytes, L1At(slot), value); }
  uint64_t AddTable(uint64_t slot) {
    uint64_t at = Append(ByteVector(geometry().l2_bytes), geometry().cluster_size);
    SetL1(slot, at);
    return at;
  }
  uint64_t EntryAt(uint64_t slot, uint64_t index) const { return L1(slot) + 8 * index; }
  uint64_t EntryOf(uint64_t slot, uint64_t index) const {
    return BeAt<uint64_t>(bytes, EntryAt(slot, index));
  }
  void SetEntry(uint64_t slot, uint64_t index, uint64_t value) {
    if (L1(slot) == 0) AddTable(slot);
    PutBe(bytes, EntryAt(slot, index), value);
  }
  uint64_t AddCluster(uint64_t slot, uint64_t index, uint8_t fill) {
    if (L1(slot) == 0) AddTable(slot);
    uint64_t at = Append(ByteVector(geometry().cluster_size, fill), geometry().cluster_size);
    SetEntry(slot, index, at);
    return at;
  }
  // A stream that decodes to one cluster of `fill`.
  uint64_t AddStream(uint64_t slot, uint64_t index, uint8_t fill) {
    if (L1(slot) == 0) AddTable(slot);
    ByteVector cluster(geometry().cluster_size, fill);
    for (size_t i = 0; i < cluster.size(); i += 3) cluster[i] = static_cast<uint8_t>(i / 5);
    auto stream = DeflateRaw(cluster, cluster.size() - 1);
    uint64_t at = Append(**stream, kSector);
    SetEntry(slot, index, Entry::Compressed(geometry(), at, (**stream).size()).raw);
    return at;
  }

  // Three tables, plain and compressed clusters, nothing wrong.
  static Fixture Sound(uint64_t size = 4 * kMiB) {
    Fixture f(size);
    f.AddCluster(3, 5, 0xA1);
    f.AddCluster(0, 9, 0xB2);
    f.AddCluster(3, 1, 0xC3);
    f.AddStream(0, 2, 0xD4);
    f.AddStream(7, 60, 0xE5);
    f.AddCluster(0, 8, 0xF6);
    f.AddCluster(7, 0, 0x17);
    return f;
  }
};

}  // namespace imgfsck::qcow1
