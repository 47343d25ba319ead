// SPDX-License-Identifier: Apache-2.0
// The mirror of parse.h: structs to bytes. Fields are written over what `raw` holds, so that bytes
// nobody understood survive, and the checksum is made anew.
#pragma once

#include <array>

#include "formats/vhd/parse.h"

namespace imgfsck::vhd {

// Brings `raw`, cookie and checksum included, up to date with the fields. Returns `raw`.
Bytes Seal(Footer* footer);
Bytes Seal(DynHeader* header);
Bytes Seal(BatmapHeader* header);  // the checksum is the map's: the caller has set it

void RemoveParent(DynHeader* header);  // id, time, name and locators
// Replaces the parent's name by `utf8`, cut to what fits. False when it had to be cut.
bool SetParentName(DynHeader* header, std::string_view utf8);

}  // namespace imgfsck::vhd
