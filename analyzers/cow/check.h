// SPDX-License-Identifier: Apache-2.0
// The checker of COW images.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {
extern const Checker kCowChecker;
}  // namespace imgfsck
