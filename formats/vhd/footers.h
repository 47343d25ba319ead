// SPDX-License-Identifier: Apache-2.0
// Finds a VHD's footers and decides which to go by (sheet §2): a sound trailing footer first, the
// copy at the start of the file next, then what can be corrected or inferred.
#pragma once

#include "formats/vhd/image.h"

namespace imgfsck::vhd {

inline constexpr uint64_t kFooterSearch = 64 * kMiB;  // how far from the end to look for one
inline constexpr uint64_t kFooterSearchOfProbe = 64 * kKiB;

// What stands at `offset`, judged as a footer.
FooterSlot ReadFooterSlot(const ByteSource& source, uint64_t offset, uint64_t length,
                          std::vector<HostRange>* bad);

// Fills trailing, leading, trailing_at_end.
void FindFooters(Image* image, uint64_t search);

// Fills footer, footer_from and kind as far as footers tell. False when no footer can be believed.
bool ChooseFooter(Image* image);

// A footer for a disk that lost both: `size` bytes of guest data. The unique id is made from
// `seed`.
Footer MakeUpFooter(DiskType type, uint64_t size, uint64_t data_offset, Bytes seed);

}  // namespace imgfsck::vhd
