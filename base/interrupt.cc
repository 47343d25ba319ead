// SPDX-License-Identifier: Apache-2.0
#include "base/interrupt.h"

#include <atomic>
#include <csignal>

namespace imgfsck {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "used in a signal handler");

void OnSignal(int) { stop_requested.store(true); }

}  // namespace

void CatchStopSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit on files fails with EFBIG
}

bool StopRequested() { return stop_requested.load(std::memory_order_relaxed); }
void RequestStop() { stop_requested.store(true); }
void ClearStopRequest() { stop_requested.store(false); }

Status CheckStop() {
  if (StopRequested()) return Error{ErrorCode::kInterrupted, "stopped by a signal", {}};
  return Ok();
}

}  // namespace imgfsck
