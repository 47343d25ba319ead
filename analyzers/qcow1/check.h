// SPDX-License-Identifier: Apache-2.0
// The checker of qcow version 1 images.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {
extern const Checker kQcow1Checker;
}  // namespace imgfsck
