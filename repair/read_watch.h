// SPDX-License-Identifier: Apache-2.0
// Remembers which reads failed while a repair was worked out. A medium that fails now and then
// shows a check one image and the next check another: where the first could not read, what lies
// there looks damaged. A plan made of both is about an image that does not exist.
#pragma once

#include <mutex>
#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

class ReadWatch : public ByteSource {
 public:
  explicit ReadWatch(const ByteSource& base) : base_(base) {}  // which must outlive it

  uint64_t Size() const override { return base_.Size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override { return base_.ExtentAt(offset); }
  void Prefetch(uint64_t offset, uint64_t length) const override { base_.Prefetch(offset, length); }

  // Reads again whatever failed. kIo, with the place, when anything of it can be read now; what
  // cannot be read is the same for every pass, and the findings say so.
  Status Confirm() const;

 private:
  struct Failure {
    uint64_t offset = 0, length = 0;
  };

  const ByteSource& base_;
  mutable std::mutex mutex_;
  mutable std::vector<Failure> failures_;  // the first kMost of them
};

}  // namespace imgfsck
