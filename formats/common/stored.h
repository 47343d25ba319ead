// SPDX-License-Identifier: Apache-2.0
// Reading only what the host file system really stores: holes of a sparse file cost nothing.
#pragma once

#include <functional>
#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

// Calls visit for every piece (at most 1 MiB, ascending) of [begin, end) that the host file stores;
// holes and what lies past the end are left out. What the medium does not give is zeros, and is
// added to *bad. visit answers false to stop early.
using PieceVisitor = std::function<Result<bool>(uint64_t offset, Bytes bytes)>;
Status ForEachStoredPiece(const ByteSource& source, uint64_t begin, uint64_t end,
                          std::vector<HostRange>* bad, const PieceVisitor& visit);

// Whether every byte of [begin, end) is zero, or not stored at all; false where it cannot be read.
Result<bool> ReadsAsZeros(const ByteSource& source, uint64_t begin, uint64_t end);

// Calls visit for every part of the hole [begin, end) that no space is set aside for. Where there
// is such space, and nothing was ever written to it, the host calls it a hole until somebody reads
// it.
using HoleVisitor = std::function<Status(uint64_t begin, uint64_t end)>;
Status ForEachLastingHole(const ByteSource& source, uint64_t begin, uint64_t end,
                          const HoleVisitor& visit);

// Bytes that the host has set aside for a file; of other sources, those outside of holes. A source
// that cannot tell counts whole; so does the rest of one in more pieces than are worth asking for.
uint64_t StoredBytes(const ByteSource& source);

}  // namespace imgfsck
