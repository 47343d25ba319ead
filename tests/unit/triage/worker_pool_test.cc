// SPDX-License-Identifier: Apache-2.0
#include "triage/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <thread>

#include "base/interrupt.h"

namespace imgfsck {
namespace {

std::map<size_t, WorkerOutcome> RunAll(size_t items, const PoolOptions& options,
                                       const std::function<void(size_t, Sender&)>& body) {
  std::map<size_t, WorkerOutcome> outcomes;
  EXPECT_TRUE(RunWorkers(items, options, body, [&](size_t item, WorkerOutcome outcome) {
    outcomes[item] = std::move(outcome);
  }));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // nobody is left
  EXPECT_EQ(errno, ECHILD);
  return outcomes;
}

void Hang() {
  while (true) pause();
}

void Spin() {
  volatile uint64_t x = 0;
  while (true) x = x + 1;
}

// Memory that is really used.
void Eat() {
  while (true) {
    constexpr size_t kPiece = size_t{8} << 20;
    void* piece = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece == MAP_FAILED) Hang();
    for (size_t i = 0; i < kPiece; i += 4096) static_cast<volatile char*>(piece)[i] = 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(WorkerPool, ResultsArriveWhateverTheJobs) {
  for (unsigned jobs : {1u, 3u, 16u}) {
    PoolOptions options;
    options.jobs = jobs;
    size_t progress = 0;
    options.progress = [&](size_t done) { progress = done; };
    auto outcomes = RunAll(20, options, [](size_t item, Sender& sender) {
      sender.Send(1, std::to_string(item));
      sender.Send(2, std::string(item * 100'000, 'x'));
    });
    ASSERT_EQ(outcomes.size(), 20u);
    EXPECT_EQ(progress, 20u);
    for (const auto& [item, outcome] : outcomes) {
      EXPECT_EQ(outcome.end, WorkerEnd::kDone);
      ASSERT_EQ(outcome.messages.size(), 2u);
      EXPECT_EQ(outcome.messages[0].bytes, std::to_string(item));
      EXPECT_EQ(outcome.messages[1].kind, 2u);
      EXPECT_EQ(outcome.messages[1].bytes.size(), item * 100'000);
    }
  }
}

TEST(WorkerPool, ACrashCostsItsOwnItem) {
  PoolOptions options;
  options.jobs = 2;
  auto outcomes = RunAll(6, options, [](size_t item, Sender& sender) {
    sender.Send(1, "begun");
    if (item == 2) {
      std::signal(SIGSEGV, SIG_DFL);
      raise(SIGSEGV);
    }
    if (item == 3) std::abort();
    if (item == 4) _exit(5);
  });
  EXPECT_EQ(outcomes[1].end, WorkerEnd::kDone);
  EXPECT_EQ(outcomes[2].end, WorkerEnd::kCrashed);
  EXPECT_EQ(outcomes[2].signal, SIGSEGV);
  EXPECT_EQ(outcomes[3].end, WorkerEnd::kCrashed);
  EXPECT_EQ(outcomes[4].end, WorkerEnd::kFailed);
  EXPECT_EQ(outcomes[5].end, WorkerEnd::kDone);
  for (const auto& [item, outcome] : outcomes) {  // what it had sent is kept
    ASSERT_EQ(outcome.messages.size(), 1u) << item;
    EXPECT_EQ(outcome.messages[0].bytes, "begun");
  }
}

TEST(WorkerPool, LimitsHold) {
  PoolOptions options;
  options.jobs = 3;
  options.limits_of = [](size_t item) {
    WorkerLimits limits;
    limits.seconds = item < 2 ? 1 : 100;
    limits.memory = uint64_t{256} << 20;
    return limits;
  };
  auto outcomes = RunAll(3, options, [](size_t item, Sender&) {
    if (item == 0) Hang();
    if (item == 1) Spin();
    if (item == 2) Eat();
  });
  EXPECT_EQ(outcomes[0].end, WorkerEnd::kOutOfTime);
  EXPECT_EQ(outcomes[1].end, WorkerEnd::kOutOfTime);
  EXPECT_EQ(outcomes[2].end, WorkerEnd::kOutOfMemory);
}

TEST(WorkerPool, FloodsAndNonsenseAreCutOff) {
  PoolOptions options;
  options.limits.result_bytes = 1 << 20;
  auto outcomes = RunAll(2, options, [](size_t item, Sender& sender) {
    if (item == 0) {
      while (true) sender.Send(1, std::string(4096, 'x'));
    }
    sender.Send(1, std::string(2 << 20, 'x'));
  });
  EXPECT_EQ(outcomes[0].end, WorkerEnd::kFailed);
  EXPECT_EQ(outcomes[1].end, WorkerEnd::kFailed);
}

TEST(WorkerPool, AStopLeavesNobodyBehind) {
  ClearStopRequest();
  PoolOptions options;
  options.jobs = 2;
  std::thread stopper([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    RequestStop();
  });
  auto done = RunWorkers(
      4, options, [](size_t, Sender&) { Hang(); }, [](size_t, WorkerOutcome) { FAIL(); });
  stopper.join();
  ClearStopRequest();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

}  // namespace
}  // namespace imgfsck
