// SPDX-License-Identifier: Apache-2.0
// The terminal: messages, progress, colour. Results go to stdout by report/; everything here goes
// to stderr.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"

namespace imgfsck {

bool WantsColour(int fd);  // a terminal, and NO_COLOR is not set

// "imgfsck: /x/y: message"; control characters never get through.
void PrintMessage(std::string_view tool, std::string_view path, std::string_view message);

// A line that is rewritten in place, shown only once the work has taken a second.
class Progress {
 public:
  // `always`: also when stderr is no terminal (then a line at a time).
  Progress(std::string tool, bool always);
  ~Progress() { Clear(); }
  void Start(std::string what);  // the image's name
  void Update(std::string_view phase, uint64_t done, uint64_t total);
  void Clear();  // takes the line away again

 private:
  using Clock = std::chrono::steady_clock;
  std::string tool_, what_;
  bool terminal_, enabled_, shown_ = false;
  Clock::time_point started_, last_;
  std::mutex mutex_;
};

// Runs a tool's main: catches stop signals, reports running out of memory as status 8.
int RunTool(const char* tool, int (*run)(int argc, char** argv), int argc, char** argv);

}  // namespace imgfsck
