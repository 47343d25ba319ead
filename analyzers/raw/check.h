// SPDX-License-Identifier: Apache-2.0
// The checker of raw images, which have no structure: only the medium can be at fault.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {
extern const Checker kRawChecker;
}  // namespace imgfsck
