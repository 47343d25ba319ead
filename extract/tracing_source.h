// SPDX-License-Identifier: Apache-2.0
// Notes which bytes of a source were asked for. A check of a copy that has the same bytes there
// must find the same.
#pragma once

#include <mutex>

#include "base/range_set.h"
#include "io/byte_source.h"

namespace imgfsck {

class TracingSource : public ByteSource {
 public:
  explicit TracingSource(const ByteSource& base) : base_(base) {}  // not owned

  uint64_t Size() const override { return base_.Size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override {
    {
      std::lock_guard lock(mutex_);
      read_.Add(offset, buffer.size());
    }
    return base_.ReadAt(offset, buffer);
  }
  Result<HostExtent> ExtentAt(uint64_t offset) const override { return base_.ExtentAt(offset); }
  void Prefetch(uint64_t offset, uint64_t length) const override { base_.Prefetch(offset, length); }

  RangeSet& read() { return read_; }  // may reach past the end

 private:
  const ByteSource& base_;
  mutable std::mutex mutex_;
  mutable RangeSet read_;
};

}  // namespace imgfsck
