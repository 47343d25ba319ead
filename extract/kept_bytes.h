// SPDX-License-Identifier: Apache-2.0
// An image of which only some ranges are left: the rest reads as zeros and counts as holes. What
// stands in the ranges can be replaced, so that names do not leave the house.
#pragma once

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "base/range_set.h"
#include "io/byte_source.h"

namespace imgfsck {

class KeptBytes : public ByteSource {
 public:
  // Stands where bytes were left out whose mere presence matters to a check: no table's entry.
  static constexpr std::string_view kLeftOut = "left out\n";

  explicit KeptBytes(const ByteSource& base) : base_(base) {}  // base is not owned

  // Ranges are cut at the end of the source.
  void Keep(uint64_t offset, uint64_t length);
  void Replace(uint64_t offset, Bytes bytes);  // the last one wins
  void Mark(uint64_t offset, uint64_t most);   // at most so many bytes of kLeftOut
  bool Keeps(uint64_t offset, uint64_t length) { return kept_.Overlaps(offset, length); }
  // A table in which nothing may be kept that makes no sense, except where something else is kept:
  // entries that differ are replaced, the others kept.
  void KeepCleaned(uint64_t offset, Bytes stored, Bytes cleaned, uint64_t entry_size);
  // After the last change: from then on several threads may read.
  void Finish();
  uint64_t kept_bytes() const;  // of ranges kept as they are
  const ByteSource& base() const { return base_; }

  uint64_t Size() const override { return base_.Size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override;

 private:
  void Put(uint64_t at, Bytes bytes, uint64_t offset, MutableBytes buffer) const;

  const ByteSource& base_;
  mutable RangeSet kept_;    // copied from base_
  mutable RangeSet stored_;  // kept, replaced or marked: no hole
  std::map<uint64_t, ByteVector> replaced_;
  uint64_t longest_ = 0;                              // of replaced_
  std::vector<std::pair<uint64_t, uint64_t>> marks_;  // offset, bytes
};

}  // namespace imgfsck
