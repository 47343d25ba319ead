// SPDX-License-Identifier: Apache-2.0
// Makes new COW images, and rewrites the header of one in place, in its own layout.
#pragma once

#include <optional>
#include <span>

#include "formats/cow/header.h"
#include "formats/format.h"

namespace imgfsck::cow {

// Version 3 of User-Mode Linux, or QEMU's layout on x86-64 when the options say so.
Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);
std::span<const OptionHelp> CreateOptionHelp();

// Writes the fields of `header` over the header of the image, durably. Version, layout and
// geometry have to be those of the image. kTooLarge when the name does not fit.
Status RewriteHeader(ByteStore& store, const Header& header);

}  // namespace imgfsck::cow
