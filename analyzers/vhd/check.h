// SPDX-License-Identifier: Apache-2.0
// The checker of VHDs.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {
extern const Checker kVhdChecker;
}  // namespace imgfsck
