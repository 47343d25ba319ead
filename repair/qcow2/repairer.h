// SPDX-License-Identifier: Apache-2.0
// The repairs of qcow2 images.
#pragma once

#include "repair/pass.h"

namespace imgfsck {
extern const Repairer kQcow2Repairer;
}  // namespace imgfsck
