// SPDX-License-Identifier: Apache-2.0
// A user's own rules: each an SQL query over an image's model (docs/model.md) that yields rows of
// severity, message, offset and length. A rule that is malformed, endless or greedy is an error of
// that rule alone.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "model/live_model.h"
#include "triage/facts.h"

namespace imgfsck {

struct Rule {
  std::string name;  // its file's, without .sql
  std::string sql;
};

// The files *.sql of a folder, by name. Fails when there is none, or one cannot be read.
Result<std::vector<Rule>> LoadRules(const std::string& folder);

std::vector<RuleFacts> RunRules(const std::vector<Rule>& rules, const ModelSource& source);

}  // namespace imgfsck
