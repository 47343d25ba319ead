// SPDX-License-Identifier: Apache-2.0
// A store that fails on demand, for tests: the n-th operation of a kind returns an error, or the
// "machine" stops at the n-th write with unsynced writes kept, lost or torn. Loop `at` from 1 until
// a run ends without Fired(): then every operation was hit once.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

struct FaultPlan {
  // kRead, kSync, kTruncate (SetSize): kIo, nothing done. kWrite: kIo, nothing written.
  // kShortWrite: kIo after half of the bytes; kTornWrite: after half of the 512-byte sectors.
  // kNoSpace: kNoSpace from a WriteAt or SetSize. kCrash: at a WriteAt or SetSize, which is then
  // itself one of the unsynced writes.
  enum class Kind {
    kNone,
    kRead,
    kWrite,
    kSync,
    kTruncate,
    kNoSpace,
    kShortWrite,
    kTornWrite,
    kCrash
  };
  Kind kind = Kind::kNone;
  uint64_t at = 0;  // the n-th operation of that kind, from 1; fails once
  // For kCrash: what becomes of writes not yet synced. kKeep: all reach the disk before the one
  // that crashed; kLose: none; kScramble: a seeded random subset, each torn at 512-byte boundaries.
  enum class Unsynced { kKeep, kLose, kScramble } unsynced = Unsynced::kKeep;
  uint64_t seed = 1;
};

// A store in memory with a disk's manners. After a crash every call fails with kIo, and Survivor()
// is what a new process would find.
class FaultStore : public ByteStore {
 public:
  FaultStore(ByteVector initial, FaultPlan plan);
  uint64_t Size() const override;
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Status WriteAt(uint64_t offset, Bytes bytes) override;
  Status SetSize(uint64_t size) override;
  Status Sync() override;

  // A crash of this store is one of the other, too: two files on one machine.
  void StopsWith(FaultStore* other) { partner_ = other; }

  bool Fired() const { return fired_; }  // the fault happened, here
  const ByteVector& Survivor() const;    // bytes on disk now (after a crash: what survived)
  uint64_t WritesSeen() const { return writes_; }  // WriteAt and SetSize

 private:
  struct Pending {
    uint64_t offset;  // of a write; or the new size
    ByteVector bytes;
    bool truncate;
  };
  bool Hit(FaultPlan::Kind kind, uint64_t count) const;
  Status BeforeWrite(const Pending& write);
  void Crash();
  ByteVector durable_;  // as of the last sync
  ByteVector current_;  // with everything since
  std::vector<Pending> pending_;
  FaultPlan plan_;
  mutable std::atomic<uint64_t> reads_ = 0;
  uint64_t writes_ = 0, syncs_ = 0, truncates_ = 0, plain_writes_ = 0;
  mutable std::atomic<bool> fired_ = false;
  bool crashed_ = false;
  FaultStore* partner_ = nullptr;  // not owned
};

}  // namespace imgfsck
