// SPDX-License-Identifier: Apache-2.0
// A qcow version 1 image as parsed: everything but the L2 tables, which are read one by one.
// Parsing never stops at damage and judges nothing. Memory is bounded by what the file stores: of
// the L1 table only entries that are not zero are kept.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/qcow1/header.h"
#include "io/byte_source.h"

namespace imgfsck::qcow1 {

// An L1 entry that is not zero.
struct L1Slot {
  uint64_t index = 0;
  uint64_t value = 0;
};

// What can be made of an L1 entry.
enum class SlotState : uint8_t {
  kUsable,   // points into the file (the table may be cut short or lie unaligned)
  kFlag,     // bit 63 is set: readers fail
  kPastEof,  // the table would start at or behind the end of the file
};

struct Image {
  const ByteSource* source = nullptr;
  uint64_t file_size = 0;  // bytes
  ByteVector head;         // the first 64 bytes, or as many as there are
  Header header;
  std::optional<XenHeader> xen;
  bool walkable = false;  // cluster_bits, l2_bits and the size make sense
  // The L1 table does not start inside the header. Where no writer puts one, and where it would
  // reach over the tables that it points to, it has to look like a table as well: else a damaged
  // offset or size would have guest data taken, and mended, as entries.
  bool l1_clear = false;
  Geometry geometry;  // only when walkable
  bool l1_little_endian = false;
  std::vector<L1Slot> l1;  // ascending; only when walkable; without l1_clear not to be trusted
  std::optional<std::string> backing_name;
  std::vector<HostRange> unreadable;  // found while parsing

  bool encrypted() const { return header.crypt_method == kCryptAes; }
  bool name_is_clear() const { return header.backing_file_offset >= HeaderEnd(); }
  uint64_t HeaderEnd() const { return kHeaderLength + (xen ? kXenHeaderLength : 0); }
  uint64_t L1EntryOffset(uint64_t index) const { return header.l1_table_offset + 8 * index; }
  SlotState StateOf(const L1Slot& slot) const;
  // Guest bytes below a slot, cut at the end of the disk.
  GuestRange GuestOf(const L1Slot& slot) const;
};

// Fails only when the start of the file cannot be read at all.
Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source);
// The same with another header in place of the stored one (repairs try candidates).
Result<std::unique_ptr<Image>> ParseImageAs(const ByteSource& source, const Header& header);

// The entries of the L2 table at `offset`, in host order; zeros past the end of the file.
void ReadL2(const Image& image, uint64_t offset, std::vector<uint64_t>* entries,
            std::vector<HostRange>* bad);

// L1 entries are big-endian, but for tapdisk files that were never converted.
uint64_t LoadL1(const Image& image, const uint8_t* bytes);
void StoreL1(const Image& image, uint8_t* bytes, uint64_t value);

// What is wrong with an L2 entry that is not empty.
struct EntryCheck {
  bool unreadable = false;  // QEMU fails: not sector-aligned, or of length zero
  bool unaligned = false;   // plain, sector-aligned but not cluster-aligned
  bool past_eof = false;    // starts behind the end of the file; a stream: reaches behind it
  bool cut = false;         // plain: starts inside the file and reaches behind its end
  bool damaged() const { return unreadable || past_eof; }
};
EntryCheck CheckEntry(const Image& image, Entry entry);

// Whether most entries of the L1 table can be what they should be. A table that the end of the file
// cuts off from its L2 tables is no worse for it.
bool PlausibleL1(const Image& image);

// Whether the bytes can be an L2 table of this image: most entries in use make sense. What lies
// behind the end of the file within reason counts as sound, since files get truncated.
bool PlausibleL2(const Image& image, const std::vector<uint64_t>& entries);

}  // namespace imgfsck::qcow1
