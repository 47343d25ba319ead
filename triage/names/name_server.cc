// SPDX-License-Identifier: Apache-2.0
#include "triage/names/name_server.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/bytes.h"
#include "base/text.h"
#include "triage/names/chain_names.h"
#include "triage/names/guest_names.h"
#include "triage/names/names_io.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 28;  // of a question, of an answer

template <class A>
void Fields(A& a, NameRequest& v) {
  a(v.path, v.format, v.snapshot, v.passphrase, v.follow, v.bitmaps, v.query);
}

// A pipe end may be full, or empty, for a while.
bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = write(fd, bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(size));
  }
  return true;
}
bool ReadAll(int fd, char* bytes, size_t length) {
  while (length > 0) {
    const ssize_t size = read(fd, bytes, length);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return false;
    bytes += size;
    length -= static_cast<size_t>(size);
  }
  return true;
}

bool SendText(int fd, std::string_view text) {
  uint8_t head[8];
  StoreLe<uint64_t>(head, text.size());
  return WriteAll(fd, AsText(Bytes(head))) && WriteAll(fd, text);
}
bool ReceiveText(int fd, std::string* text) {
  uint8_t head[8];
  if (!ReadAll(fd, reinterpret_cast<char*>(head), sizeof head)) return false;
  const auto length = LoadLe<uint64_t>(head);
  if (length > kMostBytes) return false;
  text->resize(length);
  return ReadAll(fd, text->data(), length);
}

template <class T>
std::string Packed(T& value) {
  Packer packer;
  packer(value);
  return packer.bytes();
}

NameFacts Trouble(std::string text) {
  NameFacts facts;
  facts.trouble = std::move(text);
  return facts;
}

// Whether the image names files that its disk needs.
bool NeedsOthers(const std::string& path, const std::string& format_name) {
  auto file = FileSource::Open(path);
  if (!file) return false;
  const Format* format = format_name.empty() ? ProbeFormat(**file) : FindFormat(format_name);
  if (format == nullptr || format->inspect == nullptr) return false;
  auto rows = format->inspect(**file, path);
  return rows && !(*rows)->Links().empty();
}

// In a worker.
NameFacts Answer(NameRequest request) {
  if (!request.follow && NeedsOthers(request.path, request.format)) {
    return Trouble("its disk needs the files that it names, which only --chain opens");
  }
  ChainOptions options;
  options.format = request.format;
  options.snapshot = request.snapshot;
  options.passphrase = request.passphrase;
  options.backing = request.follow ? BackingUse::kOpen : BackingUse::kRefuse;
  auto chain = Chain::Open(request.path, options);
  if (!chain) return Trouble(chain.error().message);
  return NamesOfChain(**chain, std::move(request.query), request.bitmaps);
}

// One question: always an answer.
NameFacts AnswerApart(std::string_view question, const PoolOptions& pool) {
  NameFacts facts = Trouble("the worker was stopped");
  auto done = RunWorkers(
      1, pool,
      [&](size_t, Sender& sender) {
        NameRequest request;
        Unpacker unpacker(question);
        Fields(unpacker, request);
        NameFacts answer = unpacker.complete() ? Answer(std::move(request)) : NameFacts();
        sender.Send(0, Packed(answer));
      },
      [&](size_t, WorkerOutcome outcome) {
        if (outcome.end == WorkerEnd::kDone && outcome.messages.size() == 1) {
          Unpacker unpacker(outcome.messages[0].bytes);
          unpacker(facts);
          if (unpacker.complete()) return;
        }
        facts = Trouble("the worker " + std::string(ToText(outcome.end)));
      });
  return done ? facts : Trouble(done.error().message);
}

[[noreturn]] void Serve(int fd, SandboxLevel sandbox, const WorkerLimits& limits) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  PoolOptions pool;
  pool.limits = limits;
  pool.sandbox = sandbox;
  std::string question;
  while (ReceiveText(fd, &question)) {
    CanNameFiles();  // the workers are too well locked up to load a library
    NameFacts facts = AnswerApart(question, pool);
    if (!SendText(fd, Packed(facts))) break;
  }
  _exit(0);
}

}  // namespace

Result<std::unique_ptr<NameServer>> NameServer::Start(SandboxLevel sandbox,
                                                      const WorkerLimits& limits) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrorFromErrno(errno, "make a pair of sockets");
  }
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    return ErrorFromErrno(error, "start a process for names");
  }
  if (pid == 0) {
    close(ends[0]);
    Serve(ends[1], sandbox, limits);
  }
  close(ends[1]);
  return std::unique_ptr<NameServer>(new NameServer(ends[0], pid));
}

NameServer::~NameServer() {
  close(fd_);
  waitpid(pid_, nullptr, 0);  // under a filter: refused, and nobody minds
}

NameFacts NameServer::Ask(NameRequest request) {
  Packer packer;
  Fields(packer, request);
  std::string answer;
  if (!SendText(fd_, packer.bytes()) || !ReceiveText(fd_, &answer)) {
    return Trouble("the process for names is gone");
  }
  NameFacts facts;
  Unpacker unpacker(answer);
  unpacker(facts);
  return unpacker.complete() ? facts : Trouble("the process for names sent nonsense");
}

}  // namespace imgfsck
