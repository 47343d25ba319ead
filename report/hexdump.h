// SPDX-License-Identifier: Apache-2.0
// An annotated hexdump of one structure of an image: a line for each field, with its name and
// meaning, and plain lines for the bytes between.
#pragma once

#include <vector>

#include "base/text_writer.h"
#include "io/byte_source.h"
#include "model/rows.h"

namespace imgfsck {

// The pieces called `name`; of tables also the pieces "name[0]", "name[1]" … Empty: there is none.
std::vector<StructurePiece> FindStructures(const ImageRows& rows, std::string_view name);

// `fields`: all of the image's; those inside the piece are used.
Status WriteHexdump(const ByteSource& source, const StructurePiece& piece,
                    const std::vector<FieldRow>& fields, TextWriter& out);

}  // namespace imgfsck
