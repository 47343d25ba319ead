// SPDX-License-Identifier: Apache-2.0
// The checker of qcow2 images.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {
extern const Checker kQcow2Checker;
}  // namespace imgfsck
