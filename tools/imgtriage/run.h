// SPDX-License-Identifier: Apache-2.0
// imgtriage's work around the triage itself: where outputs may lie, the custody log, the reports.
#pragma once

#include "tools/imgtriage/options.h"

namespace imgfsck {

int RunImgtriage(const ImgtriageOptions& options);  // the exit status

}  // namespace imgfsck
