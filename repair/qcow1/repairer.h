// SPDX-License-Identifier: Apache-2.0
// The repairs of qcow version 1 images.
#pragma once

#include "repair/pass.h"

namespace imgfsck {
extern const Repairer kQcow1Repairer;
}  // namespace imgfsck
