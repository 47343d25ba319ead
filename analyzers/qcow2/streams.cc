// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/streams.h"

#include <algorithm>

#include "analyzers/qcow2/stream_places.h"
#include "formats/common/deflate.h"

namespace imgfsck::qcow2 {

StreamDecoder::StreamDecoder(const Image& image)
    : image_(image), shortest_(ShortestStream(image.geometry, image.header.compression_type)) {}

bool StreamDecoder::Try(const CompressedSpan& span, uint64_t extra, DecodedStream* decoded) const {
  thread_local ByteVector in, out;
  in.resize(std::min(span.length + extra, image_.file_size - span.offset));
  out.resize(image_.geometry.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(*image_.source, span.offset, in, &bad);
  size_t consumed = 0;
  const Status status = image_.header.compression_type == kZstd ? ZstdDecode(in, out, &consumed)
                                                                : InflateRaw(in, out, &consumed);
  decoded->sound = status.has_value();
  decoded->length = std::max<uint64_t>(consumed, 1);
  return decoded->sound;
}

DecodedStream StreamDecoder::Decode(const CompressedSpan& span) const {
  DecodedStream decoded;
  if (span.offset >= image_.file_size || Try(span, 0, &decoded)) return decoded;
  // As much as an entry can name; a cluster of output hardly needs more.
  const Geometry& g = image_.geometry;
  const uint64_t most = (uint64_t{1} << (g.cluster_bits - 8)) * kCompressedSector;
  const uint64_t room = most - (span.offset & (kCompressedSector - 1));
  if (room > span.length) Try(span, room - span.length, &decoded);
  return decoded;
}

uint64_t StreamDecoder::WithLength(uint64_t descriptor, uint64_t length) const {
  const Geometry& g = image_.geometry;
  const uint64_t offset = DecodeCompressed(g, descriptor).offset;
  const uint64_t sectors = (offset + length - 1) / kCompressedSector - offset / kCompressedSector;
  const uint64_t mask = ((uint64_t{1} << (g.cluster_bits - 8)) - 1) << g.compressed_bits;
  return (descriptor & ~mask) | sectors << g.compressed_bits;
}

}  // namespace imgfsck::qcow2
