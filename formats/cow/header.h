// SPDX-License-Identifier: Apache-2.0
// A COW header read as one of the layouts, and which layout a file has. The version number does
// not tell: the layout that explains the whole header and the file's length best is taken. Parsing
// is total and judges nothing; analyzers/cow says what is wrong.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/cow/layout.h"

namespace imgfsck::cow {

struct Header {
  LayoutId layout = LayoutId::kUml3;
  bool little_endian = false;  // the fields; version 1 only
  bool magic_little_endian = false;
  bool magic_found = true;  // in one of the two orders
  uint32_t version = 3;
  std::string path;  // up to the first NUL, or the end of its field
  bool path_terminated = true;
  bool path_garbage = false;  // bytes behind the NUL that are not zero
  uint64_t mtime = 0;         // Unix time of the backing file
  uint64_t size = 0;
  uint32_t sectorsize = kSectorSize;
  uint32_t alignment = 0, cow_format = 0;  // version 3 only

  const Layout& spec() const { return LayoutOf(layout); }
  Geometry geometry() const { return MakeGeometry(spec(), size, sectorsize, alignment); }
  bool endian_mismatch() const { return magic_found && magic_little_endian != little_endian; }
};

// `bytes`: the start of the file, as much as there is; missing bytes count as zero.
Header ParseHeaderAs(LayoutId layout, bool little_endian, Bytes bytes);
// Writes magic, version and all fields over the start of `bytes` (at least the header's length); of
// the path field the name and one NUL, other bytes stay.
void EncodeHeader(const Header& header, MutableBytes bytes);

struct Candidate {
  Header header;
  int score = 0;
};

// What the layouts make of a file.
struct Resolution {
  std::vector<Candidate> candidates;  // the best first
  bool clear = false;                 // the first explains the file, and none nearly as well
  size_t contenders = 1;              // so many of the first explain it about as well
  const Header& best() const { return candidates.front().header; }
};
Resolution ResolveLayout(Bytes bytes, uint64_t file_size);

// One field as stored, for dumps and findings.
struct FieldPlace {
  std::string_view name;
  uint64_t offset, length;
};
std::vector<FieldPlace> FieldsOf(const Layout& layout);

}  // namespace imgfsck::cow
