// SPDX-License-Identifier: Apache-2.0
// imgtriage's report for people: what to look at first stands first, the numbers last.
#pragma once

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

struct TriageTextOptions {
  int verbosity = 0;    // -1: only what needs a look; 1: every reason and every kind of finding
  bool colour = false;  // escape sequences for a terminal
};

void WriteTriageText(const TriageResult& result, const TriageTextOptions& options, TextWriter& out);

}  // namespace imgfsck
