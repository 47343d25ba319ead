// SPDX-License-Identifier: Apache-2.0
// How a report is to look.
#pragma once

#include <cstddef>

#include "model/problem.h"
#include "report/guest_names.h"

namespace imgfsck {

struct ReportOptions {
  size_t max_findings = 10000;  // listed; totals always count all
  int verbosity = 0;            // -1: verdict and what matters only; 1: infos in full, evidence
  bool colour = false;          // escape sequences for a terminal
  Severity fail_on = Severity::kLeak;
  const GuestNames* names = nullptr;  // of the guest's files; null: nobody asked
};

}  // namespace imgfsck
