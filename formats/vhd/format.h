// SPDX-License-Identifier: Apache-2.0
// The VHD format, as the registry knows it: "vpc", alias "vhd".
#pragma once

#include "formats/format.h"

namespace imgfsck::vhd {

extern const Format kFormat;

}  // namespace imgfsck::vhd
