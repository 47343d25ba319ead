// SPDX-License-Identifier: Apache-2.0
// Work on hostile input, an item a process: each is forked, held to limits of memory and time, and
// sends what it found through a pipe, piece by piece. A worker that crashes, hangs or eats memory
// costs its own item and nothing else; what it had sent before is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/sandbox.h"

namespace imgfsck {

struct WorkerLimits {
  uint64_t memory = uint64_t{2} << 30;        // bytes
  unsigned seconds = 600;                     // of time, and of the processor
  uint64_t result_bytes = uint64_t{1} << 28;  // that a worker may send
};

enum class WorkerEnd : uint8_t {
  kDone,
  kCrashed,  // a signal ended it
  kOutOfMemory,
  kOutOfTime,
  kFailed,  // it ended itself, or sent nonsense
};
std::string_view ToText(WorkerEnd end);  // "done", "crashed" …

// A piece of a result: what kind, and its bytes.
struct Message {
  uint32_t kind = 0;
  std::string bytes;
};

struct WorkerOutcome {
  WorkerEnd end = WorkerEnd::kFailed;
  int signal = 0;  // kCrashed: which
  std::vector<Message> messages;
};

// In a worker: sends a message to the parent.
class Sender {
 public:
  explicit Sender(int fd) : fd_(fd) {}
  void Send(uint32_t kind, std::string_view bytes);

 private:
  int fd_;
};

struct PoolOptions {
  unsigned jobs = 1;  // workers at a time
  WorkerLimits limits;
  SandboxLevel sandbox = SandboxLevel::kNone;  // that every worker puts on
  // The limits of one item, where they differ.
  std::function<WorkerLimits(size_t item)> limits_of;
  std::function<void(size_t done)> progress;
};

// Runs body(item, sender) for every item in [0, items) in a process of its own; `ended` is called
// in the caller's process as they end, in any order. The caller has no other threads. Fails when a
// signal asked to stop (all workers are gone then) or no process can be made.
Status RunWorkers(size_t items, const PoolOptions& options,
                  const std::function<void(size_t item, Sender& sender)>& body,
                  const std::function<void(size_t item, WorkerOutcome outcome)>& ended);

}  // namespace imgfsck
