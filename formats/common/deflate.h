// SPDX-License-Identifier: Apache-2.0
// One compressed cluster: raw deflate (qcow, qcow2) and zstd (qcow2). Decoding is bounded by the
// output buffer whatever the input says, and needs no memory that the input could choose.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

// What a decoder got out of a stream, damaged or not.
struct Decoded {
  size_t consumed = 0;    // bytes of the stream
  size_t produced = 0;    // bytes written to the front of the output
  bool complete = false;  // the output was filled by a stream that is sound up to there
};

// Raw deflate, windows up to 32 KiB. Input left over, or used up just when the output is full, is
// fine. Keeps what came out before damage.
Decoded InflateRawPart(Bytes stream, MutableBytes out);
// The same, demanding exactly out.size() bytes (else kInvalid).
Status InflateRaw(Bytes stream, MutableBytes out, size_t* consumed = nullptr);

// Zstd: frames are decoded one after another until `out` is full, which has to happen at the end of
// a frame (else kInvalid); what follows is ignored.
Status ZstdDecode(Bytes stream, MutableBytes out, size_t* consumed = nullptr);

// Nothing when the stream would be longer than `limit`. Deflate: 4 KiB window, as readers of qcow
// and qcow2 expect.
Result<std::optional<ByteVector>> DeflateRaw(Bytes plain, size_t limit);
Result<std::optional<ByteVector>> ZstdEncode(Bytes plain, size_t limit);

}  // namespace imgfsck
