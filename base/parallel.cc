// SPDX-License-Identifier: Apache-2.0
#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

namespace imgfsck {

unsigned UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
    return static_cast<unsigned>(CPU_COUNT(&set));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

bool StartThread(std::vector<std::jthread>* pool, std::function<void()> work) {
  try {
    pool->emplace_back(std::move(work));
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

Status ParallelFor(size_t items, unsigned threads,
                   const std::function<Status(unsigned worker, size_t item)>& work) {
  threads = static_cast<unsigned>(std::min<size_t>(std::max(threads, 1u), items));
  if (threads <= 1) {
    for (size_t i = 0; i < items; ++i) IMG_RETURN_IF_ERROR(work(0, i));
    return Ok();
  }
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t failed_item = items;
  std::optional<Error> failure;
  auto run = [&](unsigned worker) {
    for (size_t item; (item = next.fetch_add(1)) < items;) {
      auto status = work(worker, item);
      if (status) continue;
      std::lock_guard lock(mutex);
      if (item < failed_item) {
        failed_item = item;
        failure = std::move(status).error();
      }
      next.store(items);
    }
  };
  {
    std::vector<std::jthread> pool;
    for (unsigned worker = 1; worker < threads; ++worker) {
      if (!StartThread(&pool, [&run, worker] { run(worker); })) break;  // do with fewer
    }
    run(0);
  }
  if (failure) return Error(*failure);
  return Ok();
}

}  // namespace imgfsck
