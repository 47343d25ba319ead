// SPDX-License-Identifier: Apache-2.0
// Runs the check of a VHD in memory.
#pragma once

#include <gtest/gtest.h>

#include "analyzers/vhd/check.h"
#include "analyzers/vhd/state.h"
#include "tests/unit/formats/vhd/vhd_helpers.h"

namespace imgfsck::vhd {

inline CheckOptions Deep() {
  CheckOptions options;
  options.deep = true;
  return options;
}

inline CheckReport Check(const ByteSource& source, const CheckOptions& options = Deep()) {
  auto report = CheckImage(source, kFormat, options);
  EXPECT_TRUE(report) << (report ? "" : report.error().message);
  if (!report) std::abort();
  return std::move(*report);
}

// What the findings say, for messages of failing tests; infos left out.
inline std::string Said(const CheckReport& report, Severity least = Severity::kWarning) {
  std::string text;
  for (const Finding& f : report.findings.kept()) {
    if (f.severity_or_default() < least) continue;
    text += std::string(f.info().code) + ": " + f.Message() + "\n";
  }
  return text;
}

inline const Finding* Find(const CheckReport& report, Problem problem) {
  for (const Finding& f : report.findings.kept()) {
    if (f.problem == problem) return &f;
  }
  return nullptr;
}

}  // namespace imgfsck::vhd
