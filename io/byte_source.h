// SPDX-License-Identifier: Apache-2.0
// Where bytes come from and where they may go. Everything above io reads a ByteSource; only a
// transaction, or a driver opened for writing, ever holds a ByteStore.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace imgfsck {

// A run of a source as the host file system sees it.
struct HostExtent {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool hole = false;  // no bytes stored there; reads as zeros
};

// Random-access bytes that nobody can write through. Safe to read from several threads at once.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  virtual uint64_t Size() const = 0;  // bytes

  // Reads buffer.size() bytes at `offset`, fewer only where the source ends (0 at or past the end).
  // kIo carries the offset of the first byte that could not be read.
  virtual Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const = 0;

  // The run that `offset` (< Size()) lies in, from `offset` on. A source that does not know answers
  // with one data run up to its end.
  virtual Result<HostExtent> ExtentAt(uint64_t offset) const;

  // A hint that these bytes are wanted soon.
  virtual void Prefetch(uint64_t offset, uint64_t length) const;
};

// A source that can also be changed. Calls come from one thread at a time.
class ByteStore : public ByteSource {
 public:
  virtual Status WriteAt(uint64_t offset, Bytes bytes) = 0;  // past the end: grows
  virtual Status SetSize(uint64_t size) = 0;                 // new bytes read as zeros
  virtual Status Sync() = 0;                                 // what was written is durable
  // The range reads as zeros afterwards; its space is given back where that is possible.
  virtual Status WriteZeros(uint64_t offset, uint64_t length);
};

// All of buffer, or kInvalid when the source ends before.
Status ReadExact(const ByteSource& source, uint64_t offset, MutableBytes buffer);
// All of buffer; bytes past the end of the source are zeros. The normal way to read a table.
Status ReadPadded(const ByteSource& source, uint64_t offset, MutableBytes buffer);

// A source in memory. For tests, fuzzing and structures already read.
class MemoryStore : public ByteStore {
 public:
  explicit MemoryStore(ByteVector bytes = {}) : bytes_(std::move(bytes)) {}
  uint64_t Size() const override { return bytes_.size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Status WriteAt(uint64_t offset, Bytes bytes) override;
  Status SetSize(uint64_t size) override;
  Status Sync() override { return Ok(); }
  ByteVector& bytes() { return bytes_; }
  const ByteVector& bytes() const { return bytes_; }

 private:
  ByteVector bytes_;
};

}  // namespace imgfsck
