// SPDX-License-Identifier: Apache-2.0
// The options of imgtriage, read from the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/common/command_line.h"
#include "triage/engine.h"

namespace imgfsck {

struct ImgtriageOptions {
  TriageSettings settings;
  std::string report, json, db, dfxml, bodyfile, timesketch, custody_log, verify_log, rules,
      orphans;
  bool exit_zero = false, progress = false, list_reasons = false, no_sandbox = false;
  std::vector<std::string> command_line;  // as given, for the custody log
  int verbosity = 0;                      // -1 quiet … 1

  // Files that will be made; the custody log may be there already.
  std::vector<std::string> Outputs() const;
};

using ParsedImgtriage = Parsed<ImgtriageOptions>;

ParsedImgtriage ParseImgtriage(std::vector<std::string> arguments);
std::string ImgtriageOptionsMarkdown();  // docs/cli-imgtriage.md

}  // namespace imgfsck
