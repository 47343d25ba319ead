// SPDX-License-Identifier: Apache-2.0
// A process that is started before an examination gives up its rights, and that answers questions
// for names meanwhile. It looks at nothing itself: for every question it starts a worker under
// limits and a filter of system calls, so that a crash in code for file systems costs that answer.
#pragma once

#include <memory>
#include <string>

#include "model/name_facts.h"
#include "triage/worker_pool.h"

namespace imgfsck {

struct NameRequest {
  std::string path, format, snapshot, passphrase;  // of the image
  bool follow = false;                             // open the files that the image names
  bool bitmaps = false;                            // also the files that its bitmaps call dirty
  NameQuery query;
};

class NameServer {
 public:
  // To be called before threads are started.
  static Result<std::unique_ptr<NameServer>> Start(SandboxLevel sandbox,
                                                   const WorkerLimits& limits = {});
  ~NameServer();
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

  // Never fails: what goes wrong is in the answer.
  NameFacts Ask(NameRequest request);
  // A filter over system calls must let this one be written to.
  int fd() const { return fd_; }

 private:
  NameServer(int fd, int pid) : fd_(fd), pid_(pid) {}
  int fd_, pid_;
};

}  // namespace imgfsck
