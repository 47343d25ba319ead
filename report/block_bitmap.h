// SPDX-License-Identifier: Apache-2.0
// The sector bitmap of one block of a VHD, for a hexdump: "block-bitmap[N]". They are not among
// ImageRows::Structures(), a large disk has a million of them.
#pragma once

#include <optional>
#include <string_view>

#include "io/byte_source.h"
#include "model/rows.h"

namespace imgfsck {

// Nothing: it is no such name, or block N is not stored.
Result<std::optional<StructurePiece>> FindBlockBitmap(const ImageRows& rows, std::string_view name);

// A row for each run of sectors that the bitmap calls written, at the bytes where it begins.
Result<std::vector<FieldRow>> FieldsOfBlockBitmap(const ByteSource& source,
                                                  const StructurePiece& piece);

}  // namespace imgfsck
