// SPDX-License-Identifier: Apache-2.0
// The repair passes of VHDs. Each is a constant in its own file; repairer.cc gives them their turn,
// in the order of the format sheet: footers, header, block table, bitmaps, batmap, locators, chain;
// then what moves the footer or shortens the file.
#pragma once

#include "repair/pass.h"
#include "repair/vhd/editor.h"

namespace imgfsck::vhd {

extern const Pass kFooterPass, kHeaderPass, kTablePass, kOrphanPass, kBlockPass, kBitmapPass,
    kBatmapPass, kLocatorPass, kRelinkPass, kPlacePass, kLeakPass, kAzurePass;

// Makes room for `entries` in the block table where it stands: blocks and locators behind it move
// to the end of the file, the batmap moves along. Updates *header (not yet written).
Status GrowTable(Editor* editor, uint64_t entries, DynHeader* header, PassOutcome* outcome);

}  // namespace imgfsck::vhd
