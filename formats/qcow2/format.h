// SPDX-License-Identifier: Apache-2.0
// The qcow2 entry of the table of formats.
#pragma once

#include "formats/format.h"

namespace imgfsck {
extern const Format kQcow2Format;
}  // namespace imgfsck
