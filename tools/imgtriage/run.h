// SPDX-License-Identifier: Apache-2.0
// imgtriage's work: takes the inventory, has each file examined, writes the reports.
#pragma once

#include "tools/imgtriage/options.h"

namespace imgfsck {

int RunTriage(const ImgtriageOptions& options);  // the exit status

}  // namespace imgfsck
