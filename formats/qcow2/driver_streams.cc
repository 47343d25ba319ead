// SPDX-License-Identifier: Apache-2.0
// Reading compressed clusters (sheet, section 7). Streams of guest clusters that follow one another
// mostly lie side by side: they are fetched in one read.
#include <algorithm>

#include "formats/common/deflate.h"
#include "formats/qcow2/driver_read.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kLargestFetch = 2 * kMiB;  // host bytes at a time
constexpr uint64_t kSmallGap = 64 * kKiB;     // read along between two streams

Status Decode(const Core& core, uint64_t offset, Bytes stream, MutableBytes cluster) {
  auto decoded = core.header.compression_type == kZstd ? ZstdDecode(stream, cluster)
                                                       : InflateRaw(stream, cluster);
  if (!decoded && decoded.error().code == ErrorCode::kInvalid) {
    return DamagedAt(decoded.error().message, offset);
  }
  return decoded;
}

// Host bytes in memory. Empty where they could not be read as a whole.
struct Fetched {
  uint64_t offset = 0;
  Bytes bytes;
  bool Holds(const CompressedSpan& span) const {
    return span.offset >= offset && RangeFits(span.offset - offset, span.length, bytes.size());
  }
};

// The streams from `offset` on that one read can fetch; one at least.
Result<std::vector<CompressedSpan>> Collect(Core& core, uint64_t offset, uint64_t end) {
  std::vector<CompressedSpan> spans;
  uint64_t low = UINT64_MAX, high = 0, wanted = 0;
  while (offset < end) {
    auto run = LookUp(core, offset, end - offset);
    if (!run && spans.empty()) return std::move(run).error();
    if (!run || run->state != MappingState::kCompressed) break;
    CompressedSpan span = run->span;
    // The last stream's sectors may overhang the file.
    if (span.offset < core.file.Size()) {
      span.length = std::min(span.length, core.file.Size() - span.offset);
    }
    low = std::min(low, span.offset);
    high = std::max(high, span.end());
    wanted += span.length;
    if (!spans.empty() && high - low > std::min(kLargestFetch, 2 * wanted + kSmallGap)) break;
    spans.push_back(span);
    offset += run->length;
  }
  return spans;
}

// Into memory that the thread keeps: it is as large as the largest fetch so far.
Fetched Fetch(Core& core, const std::vector<CompressedSpan>& spans) {
  thread_local ByteVector memory;
  if (spans.size() < 2) return {};
  uint64_t low = UINT64_MAX, high = 0;
  for (const CompressedSpan& span : spans) {
    low = std::min(low, span.offset);
    high = std::max(high, span.end());
  }
  if (high > core.file.Size()) return {};
  if (memory.size() < high - low) memory.resize(high - low);
  MutableBytes bytes = MutableBytes(memory).first(high - low);
  if (!core.file.Read(low, bytes)) return {};
  return {low, bytes};
}

}  // namespace

Status ReadCompressed(Core& core, const CompressedSpan& span, MutableBytes cluster) {
  if (span.offset >= core.file.Size()) {
    return DamagedAt("compressed data past the end of the file", span.offset);
  }
  ByteVector stream(std::min(span.length, core.file.Size() - span.offset));
  IMG_RETURN_IF_ERROR(core.file.Read(span.offset, stream));
  return Decode(core, span.offset, stream, cluster);
}

Result<uint64_t> ReadStreams(Core& core, uint64_t offset, MutableBytes buffer) {
  const uint64_t size = core.g().cluster_size;
  IMG_ASSIGN_OR_RETURN(const std::vector<CompressedSpan> spans,
                       Collect(core, offset, offset + buffer.size()));
  const Fetched fetched = Fetch(core, spans);
  ByteVector part;  // for a cluster that is not wanted as a whole
  uint64_t done = 0;
  for (const CompressedSpan& span : spans) {
    const uint64_t at = offset + done;
    const uint64_t length = std::min<uint64_t>(size - at % size, buffer.size() - done);
    MutableBytes wanted = buffer.subspan(done, length), cluster = wanted;
    if (length < size) {
      part.resize(size);
      cluster = part;
    }
    if (fetched.Holds(span)) {
      Bytes stream = fetched.bytes.subspan(span.offset - fetched.offset, span.length);
      IMG_RETURN_IF_ERROR(Decode(core, span.offset, stream, cluster));
    } else {
      IMG_RETURN_IF_ERROR(ReadCompressed(core, span, cluster));
    }
    if (length < size) std::ranges::copy(cluster.subspan(at % size, length), wanted.begin());
    done += length;
  }
  return done;
}

}  // namespace imgfsck::qcow2
