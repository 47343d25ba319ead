// SPDX-License-Identifier: Apache-2.0
// Splits numbered work over threads. Results depend on the numbers only, never on the threads.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "base/result.h"

namespace imgfsck {

// The machine's cores that this process may use; at least 1.
unsigned UsableCores();

// Adds a thread that does the work; false when the system has none to give.
bool StartThread(std::vector<std::jthread>* pool, std::function<void()> work);

// Calls work(worker, item) for every item in [0, items), at most `threads` at a time; `worker` is
// below `threads` and never used by two calls at once. The first error (by item number) wins;
// later items may then be left out. Runs in the caller's thread when threads <= 1.
Status ParallelFor(size_t items, unsigned threads,
                   const std::function<Status(unsigned worker, size_t item)>& work);

}  // namespace imgfsck
