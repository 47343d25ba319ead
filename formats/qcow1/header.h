// SPDX-License-Identifier: Apache-2.0
// The qcow version 1 header and the tapdisk fields behind it (sheet qcow1, sections 1 and 7).
// Parsing is total and judges nothing; analyzers/qcow1 says what is wrong.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "formats/qcow1/layout.h"

namespace imgfsck::qcow1 {

struct Header {  // fields as stored
  uint32_t magic = kMagic, version = kVersion;
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0, mtime = 0;
  uint64_t size = 0;
  uint8_t cluster_bits = 12, l2_bits = 9;
  uint16_t padding = 0;
  uint32_t crypt_method = 0;
  uint64_t l1_table_offset = kHeaderLength;

  bool has_backing_name() const { return backing_file_offset != 0 && backing_file_size != 0; }
};

struct XenHeader {
  uint32_t checksum = 0, min_cluster_alloc = 0, flags = kXenBigEndianL1;
};

// `bytes`: the start of the file, as much as there is; missing bytes count as zero.
Header ParseHeader(Bytes bytes);
void EncodeHeader(const Header& header, MutableBytes bytes);  // the 48 bytes
// Nothing when the fields are not there.
std::optional<XenHeader> ParseXenHeader(const Header& header, Bytes bytes);
void EncodeXenHeader(const XenHeader& xen, MutableBytes bytes);  // the 16 bytes, magic included

// cluster_bits and l2_bits are what they can be.
bool GeometryIsSane(const Header& header);
Geometry GeometryOf(const Header& header);  // only when sane

// One header field, for dumps and for repairs of a single field.
struct FieldSpec {
  std::string_view name;
  uint64_t offset;
  unsigned length;  // 1, 2, 4 or 8 bytes
};
std::span<const FieldSpec> HeaderFields();
std::span<const FieldSpec> XenFields();  // offsets in the file

}  // namespace imgfsck::qcow1
