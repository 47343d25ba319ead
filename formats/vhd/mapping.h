// SPDX-License-Identifier: Apache-2.0
// The guest-to-host mapping of a VHD and the host ranges it claims, streamed: one block's sector
// bitmap in memory at a time.
#pragma once

#include <memory>

#include "formats/vhd/image.h"
#include "model/rows.h"

namespace imgfsck::vhd {

// Who reads: the specification, or QEMU, which does not look at the sector bitmaps of a dynamic
// disk and takes all stored sectors as written.
enum class Reader { kSpecification, kQemu };

std::unique_ptr<RowCursor<MappingRow>> MappingsOf(const Image& image, const RowQuery& query,
                                                  Reader reader = Reader::kSpecification);
std::unique_ptr<RowCursor<RegionRow>> RegionsOf(const Image& image, const RowQuery& query);

// Bits [from, to) of a sector bitmap: the end of the run of equal bits that starts at `from`.
uint64_t BitRunEnd(Bytes bitmap, uint64_t from, uint64_t to);

}  // namespace imgfsck::vhd
