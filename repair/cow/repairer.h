// SPDX-License-Identifier: Apache-2.0
// The repairs of COW images.
#pragma once

#include "repair/pass.h"

namespace imgfsck {
extern const Repairer kCowRepairer;
}  // namespace imgfsck
