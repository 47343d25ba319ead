// SPDX-License-Identifier: Apache-2.0
// A COW image as parsed, and its bitmap as runs of sectors. The bitmap is read in pieces and holes
// are skipped, so neither memory nor time follows the claimed size of the disk. Never stops at
// damage; judges nothing.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "formats/cow/header.h"
#include "io/byte_source.h"

namespace imgfsck::cow {

struct Image {
  const ByteSource* source = nullptr;
  uint64_t file_size = 0;  // bytes
  ByteVector head;         // the first kLongestHeader bytes, or as many as there are
  Resolution layouts;
  Header header;  // of the best layout
  Geometry geometry;
  bool walkable = false;              // the fields make sense: sectors can be found
  std::vector<HostRange> unreadable;  // found while parsing

  // The bytes of the file that sectors [first, last) lie in; the last sector may be cut.
  HostRange HostOf(uint64_t first, uint64_t last) const;
  GuestRange GuestOf(uint64_t first, uint64_t last) const;
};

// Fails only when the start of the file cannot be read at all.
Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source);
// The same with a header chosen by the caller (repairs try candidates).
std::unique_ptr<Image> ImageAs(const ByteSource& source, const Header& header);

// Sectors [first, last), all of one state.
struct Run {
  uint64_t first = 0, last = 0;
  bool stored = false;  // in this file; else in the backing file
};

// Yields runs over [begin, end) in ascending order, merged, without gaps. Sectors without a usable
// bit are not stored; so are those whose bits the file or the medium does not have.
class RunReader {
 public:
  RunReader(const ByteSource& source, const Geometry& geometry, uint64_t begin, uint64_t end);
  Result<bool> Next(Run* run);  // false at the end
  std::vector<HostRange>& unreadable() { return bad_; }

 private:
  Status Fill();
  const ByteSource& source_;
  Geometry geometry_;
  uint64_t at_, end_;
  ByteVector piece_;          // of the bitmap
  uint64_t piece_begin_ = 0;  // bitmap byte
  uint64_t zero_until_ = 0;   // bitmap bytes before this one are zero from piece_'s end on
  std::vector<HostRange> bad_;
};

}  // namespace imgfsck::cow
