// SPDX-License-Identifier: Apache-2.0
// One run over many files, phase by phase: the inventory, the examination of each file in a worker
// of its own, the chains between them, and what needs several files at once.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "triage/examine.h"
#include "triage/result.h"

namespace imgfsck {

struct TriageSettings {
  std::vector<std::string> paths;
  Policy policy = Policy::kOpenstack;
  Severity fail_on = Severity::kLeak;
  unsigned jobs = 1;
  WorkerLimits limits;
  SandboxLevel sandbox = SandboxLevel::kNone;  // of the workers
  bool limit_time = false;  // limits.seconds is what it is; else it grows with the file
  ExamineOptions examine;
  std::string orphan_folder;  // where copies of unclaimed bytes go, a folder a file; empty: nowhere
  std::string model_folder;   // where workers put databases of their images; empty: none
  bool content = false;       // also hash the disks, with examine.hash's algorithms
  bool names = false;         // of the guest's files that findings concern
  bool verify_untouched = false;
  std::function<void(std::string_view phase, uint64_t done, uint64_t total)> progress;
};

// The folder of file `index` in the folder of copies.
std::string OrphanPath(const std::string& folder, size_t index);
// The database of file `index` in that folder.
std::string ModelPath(const std::string& folder, size_t index);

// Fails when a signal asked to stop, or no process can be made.
Result<TriageResult> RunTriage(const TriageSettings& settings);

}  // namespace imgfsck
