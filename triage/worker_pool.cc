// SPDX-License-Identifier: Apache-2.0
#include "triage/worker_pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <list>
#include <memory>
#include <new>

#include "base/bytes.h"
#include "base/interrupt.h"

namespace imgfsck {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kOutOfMemoryExit = 77;  // how a worker says so
constexpr size_t kHeader = 12;        // kind (4 bytes), length (8 bytes)
constexpr int kPollMilliseconds = 100;

// Address space cannot be limited where a sanitizer has reserved terabytes of it; what a worker
// really uses is watched from outside in any case.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kLimitAddressSpace = false;
#elif defined(__has_feature)
constexpr bool kLimitAddressSpace = !__has_feature(address_sanitizer);
#else
constexpr bool kLimitAddressSpace = true;
#endif
// Tables that are reserved and hardly used count as address space, not as memory.
constexpr uint64_t kAddressSpaceFactor = 4;

// A signal at `value`; death a little later, where the resource knows both.
void Limit(int resource, uint64_t value) {
  const struct rlimit limit = {value, value + (resource == RLIMIT_CPU ? 5 : 0)};
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

[[noreturn]] void RunChild(int fd, const WorkerLimits& limits, SandboxLevel sandbox,
                           uint64_t inherited, size_t item,
                           const std::function<void(size_t, Sender&)>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::set_new_handler([] { _exit(kOutOfMemoryExit); });
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_CPU, limits.seconds + 1);
  if (kLimitAddressSpace) Limit(RLIMIT_AS, inherited + limits.memory * kAddressSpaceFactor);
  // Where filters are to be had at all (the caller has asked), none is no way to go on.
  if (!EnterSandbox(sandbox, {fd, STDERR_FILENO})) _exit(1);
  Sender sender(fd);
  body(item, sender);
  _exit(0);
}

struct Memory {
  uint64_t reserved = 0, used = 0;  // bytes
};

// Of a process; zeros when nobody knows.
Memory MemoryOf(pid_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/statm", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char text[128] = {};
  const ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  unsigned long long all = 0, resident = 0;
  if (size <= 0 || std::sscanf(text, "%llu %llu", &all, &resident) != 2) return {};
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return {all * page, resident * page};
}

struct Worker {
  size_t item = 0;
  pid_t pid = -1;
  int fd = -1;
  WorkerLimits limits;
  uint64_t inherited = 0;  // bytes of memory that it had from the start
  Clock::time_point deadline;
  std::string pending;    // bytes of a message that is not complete yet
  uint64_t received = 0;  // bytes
  WorkerOutcome outcome;
  bool killed = false;

  void Kill(WorkerEnd why) {
    if (killed) return;
    killed = true;
    outcome.end = why;
    kill(pid, SIGKILL);
  }
  void Split() {
    size_t at = 0;
    while (pending.size() - at >= kHeader) {
      const auto* head = reinterpret_cast<const uint8_t*>(pending.data()) + at;
      const uint64_t length = LoadLe<uint64_t>(head + 4);
      if (length > limits.result_bytes) return Kill(WorkerEnd::kFailed);
      if (pending.size() - at - kHeader < length) break;
      outcome.messages.push_back({LoadLe<uint32_t>(head), pending.substr(at + kHeader, length)});
      at += kHeader + length;
    }
    pending.erase(0, at);
  }
};

class Pool {
 public:
  Pool(size_t items, const PoolOptions& options, const std::function<void(size_t, Sender&)>& body,
       const std::function<void(size_t, WorkerOutcome)>& ended)
      : items_(items), options_(options), body_(body), ended_(ended) {}
  ~Pool() {
    for (Worker& worker : workers_) {
      kill(worker.pid, SIGKILL);
      waitpid(worker.pid, nullptr, 0);
      close(worker.fd);
    }
  }

  Status Run() {
    while (next_ < items_ || !workers_.empty()) {
      IMG_RETURN_IF_ERROR(CheckStop());
      while (next_ < items_ && workers_.size() < std::max(options_.jobs, 1u)) {
        IMG_RETURN_IF_ERROR(Start(next_++));
      }
      IMG_RETURN_IF_ERROR(Wait());
      Watch();
    }
    return Ok();
  }

 private:
  Status Start(size_t item) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return ErrorFromErrno(errno, "make a pipe");
    std::fflush(nullptr);
    Worker worker;
    worker.item = item;
    worker.limits = options_.limits_of ? options_.limits_of(item) : options_.limits;
    const Memory mine = MemoryOf(getpid());
    worker.inherited = mine.used;
    worker.pid = fork();
    if (worker.pid < 0) {
      const int error = errno;
      close(ends[0]);
      close(ends[1]);
      return ErrorFromErrno(error, "start a worker");
    }
    if (worker.pid == 0) {
      close(ends[0]);
      RunChild(ends[1], worker.limits, options_.sandbox, mine.reserved, item, body_);
    }
    close(ends[1]);
    worker.fd = ends[0];
    worker.deadline = Clock::now() + std::chrono::seconds(worker.limits.seconds);
    workers_.push_back(std::move(worker));
    return Ok();
  }

  Status Wait() {
    std::vector<struct pollfd> polled;
    for (const Worker& worker : workers_) polled.push_back({worker.fd, POLLIN, 0});
    if (poll(polled.data(), polled.size(), kPollMilliseconds) < 0 && errno != EINTR) {
      return ErrorFromErrno(errno, "wait for workers");
    }
    size_t i = 0;
    for (auto worker = workers_.begin(); worker != workers_.end(); ++i) {
      const bool over = polled[i].revents != 0 && !Receive(*worker);
      if (!over) {
        ++worker;
        continue;
      }
      Finish(*worker);
      worker = workers_.erase(worker);
    }
    return Ok();
  }

  // False when nothing more will come.
  bool Receive(Worker& worker) {
    const ssize_t size = read(worker.fd, buffer_.data(), buffer_.size());
    if (size < 0) return errno == EINTR || errno == EAGAIN;
    if (size == 0) return false;
    worker.received += static_cast<uint64_t>(size);
    if (worker.received > worker.limits.result_bytes) {
      worker.Kill(WorkerEnd::kFailed);
    } else {
      worker.pending.append(buffer_.data(), static_cast<size_t>(size));
      worker.Split();
    }
    return true;
  }

  // Kills what takes too long or too much.
  void Watch() {
    const Clock::time_point now = Clock::now();
    if (now - watched_ < std::chrono::milliseconds(kPollMilliseconds)) return;
    watched_ = now;
    for (Worker& worker : workers_) {
      if (now > worker.deadline) worker.Kill(WorkerEnd::kOutOfTime);
      if (MemoryOf(worker.pid).used > worker.inherited + worker.limits.memory) {
        worker.Kill(WorkerEnd::kOutOfMemory);
      }
    }
  }

  void Finish(Worker& worker) {
    // Nothing holds its end of the pipe any more, so it is ending; if not, it is made to.
    int status = 0;
    struct pollfd none = {-1, 0, 0};
    while (waitpid(worker.pid, &status, WNOHANG) == 0) {
      if (Clock::now() > worker.deadline) worker.Kill(WorkerEnd::kOutOfTime);
      poll(&none, 1, 1);
    }
    close(worker.fd);
    WorkerOutcome& outcome = worker.outcome;
    if (!worker.killed) {
      if (WIFSIGNALED(status)) {
        outcome.signal = WTERMSIG(status);
        outcome.end = outcome.signal == SIGXCPU ? WorkerEnd::kOutOfTime : WorkerEnd::kCrashed;
      } else if (WEXITSTATUS(status) == kOutOfMemoryExit) {
        outcome.end = WorkerEnd::kOutOfMemory;
      } else {
        const bool clean = WEXITSTATUS(status) == 0 && worker.pending.empty();
        outcome.end = clean ? WorkerEnd::kDone : WorkerEnd::kFailed;
      }
    }
    ended_(worker.item, std::move(outcome));
    if (options_.progress) options_.progress(++done_);
  }

  size_t items_, next_ = 0, done_ = 0;
  const PoolOptions& options_;
  const std::function<void(size_t, Sender&)>& body_;
  const std::function<void(size_t, WorkerOutcome)>& ended_;
  std::list<Worker> workers_;
  Clock::time_point watched_;
  std::array<char, 1 << 16> buffer_{};
};

}  // namespace

std::string_view ToText(WorkerEnd end) {
  switch (end) {
    case WorkerEnd::kDone:
      return "done";
    case WorkerEnd::kCrashed:
      return "crashed";
    case WorkerEnd::kOutOfMemory:
      return "out of memory";
    case WorkerEnd::kOutOfTime:
      return "out of time";
    case WorkerEnd::kFailed:
      return "failed";
  }
  return "";
}

void Sender::Send(uint32_t kind, std::string_view bytes) {
  std::string message(kHeader, '\0');
  auto* head = reinterpret_cast<uint8_t*>(message.data());
  StoreLe(head, kind);
  StoreLe<uint64_t>(head + 4, bytes.size());
  message += bytes;
  for (std::string_view rest = message; !rest.empty();) {
    const ssize_t size = write(fd_, rest.data(), rest.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) _exit(1);  // nobody listens any more
    rest.remove_prefix(static_cast<size_t>(size));
  }
}

Status RunWorkers(size_t items, const PoolOptions& options,
                  const std::function<void(size_t item, Sender& sender)>& body,
                  const std::function<void(size_t item, WorkerOutcome outcome)>& ended) {
  return Pool(items, options, body, ended).Run();
}

}  // namespace imgfsck
