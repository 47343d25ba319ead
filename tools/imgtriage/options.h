// SPDX-License-Identifier: Apache-2.0
// The options of imgtriage, read from the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/problem.h"
#include "triage/policy/policy.h"
#include "triage/reasons.h"
#include "triage/worker_pool.h"

namespace imgfsck {

struct ImgtriageOptions {
  std::vector<std::string> paths;
  std::string json;
  Policy policy = Policy::kOpenstack;
  PolicyOptions policy_options;
  Severity fail_on = Severity::kLeak;
  unsigned jobs = 0;  // 0: all cores
  WorkerLimits limits;
  bool limit_time = false;  // the user set it; else it follows the file's size
  bool deep = false, exit_zero = false, progress = false, list_reasons = false;
  size_t max_findings = 1000;
  int verbosity = 0;  // -1 quiet … 1

  // Files that will be written.
  std::vector<std::string> Outputs() const;
};

// What came out of reading the command line.
struct ParsedImgtriage {
  ImgtriageOptions options;
  std::optional<int> exit_code;  // set: print `text` (help, version, a usage error) and end
  std::string text;
};

ParsedImgtriage ParseImgtriage(std::vector<std::string> arguments);
std::string ImgtriageOptionsMarkdown();  // docs/cli-imgtriage.md

}  // namespace imgfsck
