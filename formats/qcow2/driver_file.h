// SPDX-License-Identifier: Apache-2.0
// A file behind the driver: the image itself, or its external data file. Knows whether something
// was written since the last sync, so that an ordering point with nothing to order costs nothing.
#pragma once

#include "io/byte_source.h"

namespace imgfsck::qcow2 {

class DriverFile {
 public:
  DriverFile(const ByteSource* source, ByteStore* store) : source_(source), store_(store) {}

  const ByteSource& source() const { return *source_; }
  bool writable() const { return store_ != nullptr; }
  uint64_t Size() const { return source_->Size(); }
  Status Read(uint64_t offset, MutableBytes buffer) const;  // zeros past the end

  // After a failed sync nobody knows what is on disk: every later call fails too.
  Status Write(uint64_t offset, Bytes bytes);
  Status Zero(uint64_t offset, uint64_t length);  // past the end: grows
  Status Truncate(uint64_t size);
  Status Sync();

 private:
  Status Usable() const;
  const ByteSource* source_;
  ByteStore* store_;
  bool unsynced_ = false;
  bool failed_ = false;
};

}  // namespace imgfsck::qcow2
