// SPDX-License-Identifier: Apache-2.0
#include "tools/common/terminal.h"

#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "base/interrupt.h"
#include "base/text.h"
#include "tools/common/exit_codes.h"

namespace imgfsck {

bool WantsColour(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(fd) == 1 && (no_colour == nullptr || *no_colour == '\0');
}

void PrintMessage(std::string_view tool, std::string_view path, std::string_view message) {
  std::string line = path.empty()
                         ? fmt::format("{}: {}\n", tool, Printable(message))
                         : fmt::format("{}: {}: {}\n", tool, Printable(path), Printable(message));
  std::fwrite(line.data(), 1, line.size(), stderr);
}

Progress::Progress(std::string tool, bool always)
    : tool_(std::move(tool)),
      terminal_(isatty(STDERR_FILENO) == 1),
      enabled_(terminal_ || always) {}

void Progress::Start(std::string what) {
  what_ = std::move(what);
  started_ = last_ = Clock::now();
}

void Progress::Update(std::string_view phase, uint64_t done, uint64_t total) {
  using std::chrono::milliseconds;
  if (!enabled_) return;
  std::lock_guard lock(mutex_);
  Clock::time_point now = Clock::now();
  if (now - started_ < milliseconds(1000) || now - last_ < milliseconds(200)) return;
  last_ = now;
  shown_ = true;
  uint64_t percent = total == 0 ? 0 : done * 100 / total;
  std::string line = fmt::format("{}: {}: {} {}%", tool_, Printable(what_), phase, percent);
  line = terminal_ ? "\r" + line + "\x1b[K" : line + "\n";
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

void Progress::Clear() {
  std::lock_guard lock(mutex_);
  if (shown_ && terminal_) fmt::print(stderr, "\r\x1b[K");
  shown_ = false;
}

namespace {

const char* running_tool = "";

[[noreturn]] void OutOfMemory() {
  // Nothing may be allocated here.
  static constexpr char kText[] = ": out of memory\n";
  [[maybe_unused]] ssize_t n =
      write(STDERR_FILENO, running_tool, std::char_traits<char>::length(running_tool));
  n = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(kExitFailed);
}

// Before main(), where the libraries' own objects are made, memory may end already.
[[gnu::constructor(101)]] void CatchOutOfMemory() {
  running_tool = program_invocation_short_name;
  std::set_new_handler(OutOfMemory);
}

}  // namespace

int RunTool(const char* tool, int (*run)(int argc, char** argv), int argc, char** argv) {
  running_tool = tool;
  CatchStopSignals();
  return run(argc, argv);
}

}  // namespace imgfsck
