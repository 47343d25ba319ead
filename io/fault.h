// SPDX-License-Identifier: Apache-2.0
// A store that fails on demand, for tests: the n-th operation of a kind returns an error, or the
// "machine" stops at the n-th write with unsynced writes kept, lost or torn.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

struct FaultPlan {
  enum class Kind { kNone, kRead, kWrite, kSync, kTruncate, kNoSpace, kShortWrite, kCrash };
  Kind kind = Kind::kNone;
  uint64_t at = 0;  // the n-th operation of that kind, from 1
  // For kCrash: what becomes of writes not yet synced. kKeep: all reach the disk up to the crash;
  // kLose: none; kScramble: a seeded random subset, each torn at 512-byte boundaries.
  enum class Unsynced { kKeep, kLose, kScramble } unsynced = Unsynced::kKeep;
  uint64_t seed = 1;
};

// Wraps a MemoryStore-like backing. After a crash every call fails with kIo, and Survivor() is what
// a new process would find.
class FaultStore : public ByteStore {
 public:
  FaultStore(ByteVector initial, FaultPlan plan);
  uint64_t Size() const override;
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Status WriteAt(uint64_t offset, Bytes bytes) override;
  Status SetSize(uint64_t size) override;
  Status Sync() override;

  bool Fired() const { return fired_; }       // the fault happened
  const ByteVector& Survivor() const;         // bytes on disk now (after a crash: what survived)
  uint64_t WritesSeen() const { return writes_; }

 private:
  struct Pending {
    uint64_t offset;
    ByteVector bytes;
    bool truncate;
  };
  void Crash();
  ByteVector durable_;  // as of the last sync
  ByteVector current_;  // with everything since
  std::vector<Pending> pending_;
  FaultPlan plan_;
  mutable uint64_t reads_ = 0;
  uint64_t writes_ = 0, syncs_ = 0, truncates_ = 0;
  mutable bool fired_ = false;
  bool crashed_ = false;
};

}  // namespace imgfsck
