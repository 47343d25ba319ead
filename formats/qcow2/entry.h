// SPDX-License-Identifier: Apache-2.0
// One L2 entry decoded (sheet, sections 4 to 6). Pure arithmetic; judges nothing.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {

struct Entry {
  uint64_t descriptor = 0;   // the first 8 bytes, in host order
  uint64_t subclusters = 0;  // the bitmap of an extended entry, else 0

  bool compressed() const { return (descriptor & kCompressed) != 0; }
  bool copied() const { return (descriptor & kCopied) != 0; }
  bool zero_flag() const { return (descriptor & kZeroFlag) != 0; }
  uint64_t host() const { return descriptor & kOffsetMask; }  // of a standard entry
  uint32_t alloc_bits() const { return static_cast<uint32_t>(subclusters); }
  uint32_t zero_bits() const { return static_cast<uint32_t>(subclusters >> 32); }
  bool empty() const { return descriptor == 0 && subclusters == 0; }
};

inline Entry LoadEntry(const Geometry& g, Bytes table, uint64_t index) {
  const uint8_t* p = table.data() + index * g.l2_entry_size;
  return {LoadBe<uint64_t>(p), g.extended_l2 ? LoadBe<uint64_t>(p + 8) : 0};
}

inline void StoreEntry(const Geometry& g, MutableBytes table, uint64_t index, const Entry& entry) {
  uint8_t* p = table.data() + index * g.l2_entry_size;
  StoreBe(p, entry.descriptor);
  if (g.extended_l2) StoreBe(p + 8, entry.subclusters);
}

}  // namespace imgfsck::qcow2
