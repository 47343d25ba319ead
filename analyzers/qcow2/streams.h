// SPDX-License-Identifier: Apache-2.0
// Decodes compressed clusters for what their streams are, not for what they hold: does a stream
// give one whole cluster, and how many bytes of the file does it take.
#pragma once

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

struct DecodedStream {
  bool sound = false;   // it gives a cluster
  uint64_t length = 0;  // bytes of the file that it takes; may be more than the entry says
};

class StreamDecoder {
 public:
  explicit StreamDecoder(const Image& image);

  // Safe to call from several threads. Looks beyond the span when that is not enough.
  DecodedStream Decode(const CompressedSpan& span) const;
  DecodedStream Decode(uint64_t descriptor) const {
    return Decode(DecodeCompressed(image_.geometry, descriptor));
  }
  uint64_t shortest() const { return shortest_; }
  // The descriptor with as many sectors as a stream of `length` bytes touches.
  uint64_t WithLength(uint64_t descriptor, uint64_t length) const;

 private:
  bool Try(const CompressedSpan& span, uint64_t extra, DecodedStream* decoded) const;

  const Image& image_;
  uint64_t shortest_;
};

}  // namespace imgfsck::qcow2
