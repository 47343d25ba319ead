// SPDX-License-Identifier: Apache-2.0
// Work handed out in order, done by several threads, and taken in order by one: readers decode
// pieces of a disk while the caller's thread writes them out. Memory is bounded by the pieces in
// flight.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/parallel.h"
#include "base/result.h"

namespace imgfsck {

template <class Piece>
class Pipeline {
 public:
  // Fills in what is to be done next, one call at a time; false when there is nothing more.
  using Next = std::function<Result<bool>(Piece& piece)>;
  using Step = std::function<Status(Piece& piece)>;

  // `produce` runs in any thread; `consume` in the caller's, in order. Pieces are used again. The
  // first error, in that order, ends it. Where the system has no thread to give, the caller's does
  // all of it.
  Status Run(unsigned threads, const Next& next, const Step& produce, const Step& consume) {
    slots_ = std::vector<Slot>(2 * size_t{threads} + 2);
    std::vector<std::jthread> pool;
    for (unsigned i = 0; i < threads; ++i) {
      if (!StartThread(&pool, [&] { Work(next, produce); })) break;
    }
    Status status = Ok();
    while (status) {
      if (pool.empty()) WorkOnce(next, produce);
      Slot& slot = slots_[taken_ % slots_.size()];
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return slot.ready || (ended_ && taken_ == given_); });
      if (!slot.ready) break;
      lock.unlock();
      status = slot.status ? consume(slot.piece) : slot.status;
      lock.lock();
      slot.ready = false;
      ++taken_;
      room_.notify_one();
    }
    std::lock_guard lock(mutex_);
    ended_ = true;
    room_.notify_all();
    return status;
  }

 private:
  struct Slot {
    Piece piece;
    Status status;
    bool ready = false;  // done, not taken yet
  };

  void Work(const Next& next, const Step& produce) {
    while (WorkOnce(next, produce)) {
    }
  }

  bool WorkOnce(const Next& next, const Step& produce) {
    Slot* slot = nullptr;
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return ended_ || given_ < taken_ + slots_.size(); });
      if (ended_) return false;
      slot = &slots_[given_ % slots_.size()];
      slot->status = Ok();
      auto more = next(slot->piece);
      if (!more) slot->status = std::move(more).error();
      if (!more || !*more) {
        ended_ = true;
        room_.notify_all();
      }
      if (more && !*more) {
        ready_.notify_one();
        return false;
      }
      ++given_;
    }
    if (slot->status) slot->status = produce(slot->piece);
    std::lock_guard lock(mutex_);
    slot->ready = true;
    ready_.notify_one();
    return true;
  }

  std::vector<Slot> slots_;  // number n is in slot n modulo their count
  std::mutex mutex_;
  std::condition_variable ready_, room_;
  uint64_t given_ = 0, taken_ = 0;
  bool ended_ = false;  // nothing more is given out
};

}  // namespace imgfsck
