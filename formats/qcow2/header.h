// SPDX-License-Identifier: Apache-2.0
// The qcow2 header and its extension area (sheet, sections 1 and 2). Parsing is total: it keeps
// every byte it does not know and judges nothing; analyzers/qcow2 says what is wrong.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {

// Fields as stored. A version 2 header has none from incompatible_features on: then they hold what
// version 2 implies.
struct Header {
  uint32_t magic = 0, version = 0;
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0, cluster_bits = 0;
  uint64_t size = 0;
  uint32_t crypt_method = 0, l1_size = 0;
  uint64_t l1_table_offset = 0, refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0, nb_snapshots = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible_features = 0, compatible_features = 0, autoclear_features = 0;
  uint32_t refcount_order = 4, header_length = kHeaderLengthV2;
  uint8_t compression_type = 0;

  bool Incompatible(uint64_t bit) const { return (incompatible_features & bit) != 0; }
  bool Autoclear(uint64_t bit) const { return (autoclear_features & bit) != 0; }
  bool is_v3() const { return version >= 3; }
  bool has_compression_field() const { return is_v3() && header_length > kHeaderLengthV3; }
  // Where the extension area begins, whatever header_length says.
  uint64_t ExtensionsBegin() const;
};

// `bytes`: the start of the file, as much as there is; missing bytes count as zero.
Header ParseHeader(Bytes bytes);
// Writes the fields over the start of `bytes` (at least 112 bytes), leaving all others as they are;
// for version 2 only the 72 bytes that it has.
void EncodeHeader(const Header& header, MutableBytes bytes);

// One header field, for dumps and for repairs that touch a single field.
struct FieldSpec {
  std::string_view name;
  uint64_t offset;
  unsigned length;  // 1, 4 or 8 bytes
  bool v3_only;
};
std::span<const FieldSpec> HeaderFields();

struct Extension {
  uint32_t type = 0;
  uint64_t offset = 0;  // of the record's type field in the file
  uint32_t length = 0;  // of the data, as stored
  Bytes data;           // as much of it as lies inside the area
  uint64_t end() const { return offset + 8 + AlignUp(length, 8); }
};

// The extension area as found.
struct ExtensionArea {
  std::vector<Extension> records;      // without END, unless that has a length that does not fit
  std::optional<uint64_t> end_marker;  // offset of the END record
  std::optional<uint64_t> overrun;  // offset of a record that does not fit; parsing stopped there
  uint64_t begin = 0, limit = 0;    // the area: [begin, limit)
  uint64_t end = 0;                 // first byte behind the last record (END included)
  const Extension* Find(uint32_t type) const;  // the first of that type
};

// `cluster`: the first cluster. The result refers into it.
ExtensionArea ParseExtensions(const Header& header, Bytes cluster);

// Whether the record holds the name of a format that QEMU knows; it reads to the first zero.
bool IsBackingFormat(const Extension& record);

// The backing file's name, where the header has one and it lies inside `cluster`.
std::optional<std::string> BackingName(const Header& header, Bytes cluster);

std::string_view ExtensionName(uint32_t type);  // "backing format" …, "unknown"
std::string FeatureText(const Header& header,
                        int kind);  // kind 0 incompatible 1 compatible 2 autoclear

}  // namespace imgfsck::qcow2
