// SPDX-License-Identifier: Apache-2.0
// The custody log: who did what to which files when, as JSON Lines. Each record carries the SHA-256
// of the record before it, so that none can be changed, removed or put in unnoticed. Records are
// only ever added. Clock, user and host stand here and in no report.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/json_writer.h"
#include "base/result.h"

namespace imgfsck {

struct CustodyState {
  uint64_t records = 0, runs = 0, unfinished = 0;  // unfinished: runs without an end
  std::string last_hash;                           // of the last record
  bool open_run = false;                           // the last run has no end (yet)
  uint64_t broken_record = 0;                      // counted from 1; 0: none
  std::string trouble;                             // what is wrong with it
};
// Fails only when the file cannot be read.
Result<CustodyState> VerifyCustodyLog(const std::string& path);

class CustodyLog {
 public:
  // An existing log is continued when it is unbroken (else kConflict); nobody else may write to it
  // at the same time (kLocked).
  static Result<std::unique_ptr<CustodyLog>> Open(const std::string& path);
  ~CustodyLog();
  CustodyLog(const CustodyLog&) = delete;
  CustodyLog& operator=(const CustodyLog&) = delete;

  // `members` adds to the record's object.
  Status Record(std::string_view event, const std::function<void(JsonWriter& json)>& members);
  // "start" and "end" frame a run; durable when they return.
  Status Start(const std::vector<std::string>& command_line);
  Status End(int exit_status);

 private:
  CustodyLog(int fd, CustodyState state) : fd_(fd), state_(std::move(state)) {}
  int fd_;
  CustodyState state_;
};

}  // namespace imgfsck
