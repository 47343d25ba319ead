// SPDX-License-Identifier: Apache-2.0
#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "base/interrupt.h"

namespace imgfsck {
namespace {

TEST(ParallelFor, EveryItemOnceWhateverTheThreads) {
  for (unsigned threads : {0u, 1u, 2u, 3u, 8u, 64u}) {
    for (size_t items : {size_t{0}, size_t{1}, size_t{2}, size_t{7}, size_t{1000}}) {
      std::vector<std::atomic<int>> seen(items);
      ASSERT_TRUE(ParallelFor(items, threads, [&](unsigned, size_t item) {
        ++seen[item];
        return Ok();
      }));
      for (size_t i = 0; i < items; ++i) ASSERT_EQ(seen[i], 1) << i << " of " << items;
    }
  }
}

TEST(ParallelFor, ResultsByItemAreTheSame) {
  const auto run = [](unsigned threads) {
    std::vector<size_t> results(5000);
    EXPECT_TRUE(ParallelFor(results.size(), threads, [&](unsigned, size_t item) {
      results[item] = item * item % 977;
      return Ok();
    }));
    return results;
  };
  const auto expected = run(1);
  for (unsigned threads = 2; threads < 9; ++threads) EXPECT_EQ(run(threads), expected);
}

TEST(ParallelFor, AWorkerIsNeverUsedTwiceAtOnce) {
  constexpr unsigned kThreads = 4;
  std::vector<std::atomic<int>> busy(kThreads);
  std::atomic<int> clashes{0};
  std::vector<uint64_t> sums(kThreads);  // no lock: each belongs to one worker
  ASSERT_TRUE(ParallelFor(2000, kThreads, [&](unsigned worker, size_t item) {
    if (worker >= kThreads || ++busy[worker] != 1) ++clashes;
    sums[worker] += item;
    --busy[worker];
    return Ok();
  }));
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), uint64_t{0}), 1999u * 1000);
}

TEST(ParallelFor, TheFirstErrorByNumberWins) {
  for (unsigned threads : {1u, 2u, 4u}) {
    for (int round = 0; round < 50; ++round) {
      const auto status = ParallelFor(200, threads, [&](unsigned, size_t item) -> Status {
        if (item < 20) return Ok();
        // The later the item, the sooner it fails.
        if (item < 24) std::this_thread::sleep_for(std::chrono::microseconds(200 * (24 - item)));
        return Error{ErrorCode::kIo, "item " + std::to_string(item), item};
      });
      ASSERT_FALSE(status);
      ASSERT_EQ(status.error().offset, 20u);
    }
  }
}

TEST(ParallelFor, UsesSomeCore) { EXPECT_GE(UsableCores(), 1u); }

TEST(Interrupt, IsSeenUntilCleared) {
  EXPECT_TRUE(CheckStop());
  RequestStop();
  EXPECT_TRUE(StopRequested());
  auto status = CheckStop();
  ClearStopRequest();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInterrupted);
  EXPECT_TRUE(CheckStop());
}

}  // namespace
}  // namespace imgfsck
