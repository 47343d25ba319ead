// SPDX-License-Identifier: Apache-2.0
// The checksum that tapdisk keeps of the L1 table (sheet qcow1, section 7).
#pragma once

#include "base/result.h"
#include "formats/qcow1/layout.h"
#include "io/byte_source.h"

namespace imgfsck::qcow1 {

// The first four MD5 bytes of the L1 table in big-endian form, as the field `cksum` holds them.
// Bytes of the table past the end of the file count as zeros.
Result<uint32_t> XenChecksum(const ByteSource& source, const Geometry& geometry, uint64_t l1_offset,
                             bool little_endian);

}  // namespace imgfsck::qcow1
