// SPDX-License-Identifier: Apache-2.0
// A file seen with other bytes at its start: how it would read with another header. The bytes below
// the prefix are not even read, so a start that the medium does not give can be replaced too.
#pragma once

#include <algorithm>
#include <utility>

#include "io/byte_source.h"

namespace imgfsck::qcow2 {

class PrefixSource : public ByteSource {
 public:
  PrefixSource(const ByteSource& base, ByteVector prefix)
      : base_(base), prefix_(std::move(prefix)) {}

  uint64_t Size() const override { return base_.Size(); }

  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
    if (offset >= prefix_.size()) return base_.ReadAt(offset, buffer);
    size_t own = std::min<size_t>(buffer.size(), prefix_.size() - offset);
    std::copy_n(prefix_.data() + offset, own, buffer.data());
    if (own == buffer.size()) return own;
    IMG_ASSIGN_OR_RETURN(size_t rest, base_.ReadAt(prefix_.size(), buffer.subspan(own)));
    return own + rest;
  }

  Result<HostExtent> ExtentAt(uint64_t offset) const override {
    if (offset >= prefix_.size()) return base_.ExtentAt(offset);
    return HostExtent{offset, prefix_.size() - offset, false};
  }

  void Prefetch(uint64_t offset, uint64_t length) const override { base_.Prefetch(offset, length); }

  const ByteVector& prefix() const { return prefix_; }

 private:
  const ByteSource& base_;
  ByteVector prefix_;
};

}  // namespace imgfsck::qcow2
