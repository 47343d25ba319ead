// SPDX-License-Identifier: Apache-2.0
// The repairs of VHDs.
#pragma once

#include "repair/pass.h"

namespace imgfsck {
extern const Repairer kVhdRepairer;
}  // namespace imgfsck
