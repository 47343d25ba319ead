// SPDX-License-Identifier: Apache-2.0
// Exit statuses of the tools, the bits of fsck(8).
#pragma once

#include "base/result.h"

namespace imgfsck {

inline constexpr int kExitClean = 0, kExitRepaired = 1, kExitProblemsLeft = 4, kExitFailed = 8,
                     kExitUsage = 16, kExitStopped = 32;

inline int ExitCodeFor(const Error& error) {
  return error.code == ErrorCode::kInterrupted ? kExitStopped : kExitFailed;
}

}  // namespace imgfsck
