// SPDX-License-Identifier: Apache-2.0
// Finds a VHD's dynamic header, which has no second copy, and works out what its fields must have
// been where it is damaged: from the stored checksum, the spacing of the blocks, the usual places.
#pragma once

#include "formats/vhd/image.h"

namespace imgfsck::vhd {

// Fills header_state, header_offset and stored_header. Looks where the footers point, at 512 and,
// when `search`, at every sector of the first MiB. False when there is nothing like a header.
bool FindHeader(Image* image, bool search);

// The header with the fewest fields of stored_header replaced by usual values for which the stored
// checksum is right and that does not contradict the blocks. Nothing when there is none.
std::optional<DynHeader> CorrectHeader(const Image& image);

// Decides which header to go by: as stored, corrected, or with impossible fields inferred. Fills
// header and header_from. Needs footer and stored_header.
void ChooseHeader(Image* image);

bool BlockSizeSane(uint64_t block_size);  // a power of two that readers accept
// Where a block table may begin: behind the header, in the file.
bool TableOffsetSane(const Image& image, uint64_t offset);
DynHeader WithCookie(const DynHeader& header);

}  // namespace imgfsck::vhd
