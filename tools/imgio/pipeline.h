// SPDX-License-Identifier: Apache-2.0
// Numbered work done by several threads and taken in order by one: readers decode pieces of a disk
// while the caller's thread writes them out. Memory is bounded by the pieces in flight.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/result.h"

namespace imgfsck {

// `produce(item, piece)` runs in any thread, for items 0, 1, …; `consume(item, piece)` in the
// caller's, in order. Pieces are reused. The first error, by item, ends it.
template <class Piece>
class Pipeline {
 public:
  using Step = std::function<Status(uint64_t item, Piece& piece)>;

  Status Run(uint64_t items, unsigned threads, const Step& produce, const Step& consume) {
    slots_ = std::vector<Slot>(2 * threads + 2);
    std::vector<std::jthread> pool;
    for (unsigned i = 0; i < threads; ++i) {
      pool.emplace_back([&] { Work(items, produce); });
    }
    Status status = Ok();
    for (uint64_t item = 0; item < items && status; ++item) {
      Slot& slot = slots_[item % slots_.size()];
      {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [&] { return slot.done == item + 1; });
      }
      status = slot.status ? consume(item, slot.piece) : slot.status;
      std::lock_guard lock(mutex_);
      taken_ = item + 1;
      room_.notify_all();
    }
    std::lock_guard lock(mutex_);
    stop_ = true;
    room_.notify_all();
    return status;
  }

 private:
  struct Slot {
    Piece piece;
    Status status;
    uint64_t done = 0;  // item + 1 that is ready in here
  };

  void Work(uint64_t items, const Step& produce) {
    while (true) {
      uint64_t item = 0;
      {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [&] { return stop_ || next_ >= items || next_ < taken_ + slots_.size(); });
        if (stop_ || next_ >= items) return;
        item = next_++;
      }
      Slot& slot = slots_[item % slots_.size()];
      slot.status = produce(item, slot.piece);
      std::lock_guard lock(mutex_);
      slot.done = item + 1;
      ready_.notify_all();
    }
  }

  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable ready_, room_;
  uint64_t next_ = 0, taken_ = 0;
  bool stop_ = false;
};

}  // namespace imgfsck
