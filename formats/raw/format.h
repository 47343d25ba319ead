// SPDX-License-Identifier: Apache-2.0
// Raw images: the file is the disk. Never probed, because anything is a raw image; used only when
// named (--format raw, a backing format).
#pragma once

#include "formats/format.h"

namespace imgfsck {
extern const Format kRawFormat;
}  // namespace imgfsck
