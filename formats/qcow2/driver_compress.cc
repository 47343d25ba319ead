// SPDX-License-Identifier: Apache-2.0
// Compressed writes: clusters are compressed on all cores, then stored one behind the other, so
// that several streams share a host cluster (sheet, section 7).
#include <algorithm>
#include <bit>

#include "base/parallel.h"
#include "formats/common/deflate.h"
#include "formats/qcow2/driver_write.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kBatchBytes = 8 * kMiB;  // guest bytes compressed at a time
using Stream = std::optional<ByteVector>;   // nothing: did not get smaller

Result<std::vector<Stream>> CompressAll(const Core& core, Bytes bytes) {
  const uint64_t cluster = core.g().cluster_size;
  std::vector<Stream> streams(core.g().ClustersOf(bytes.size()));
  bool zstd = core.header.compression_type == kZstd;
  IMG_RETURN_IF_ERROR(ParallelFor(streams.size(), UsableCores(), [&](unsigned, size_t i) -> Status {
    Bytes plain = bytes.subspan(i * cluster, std::min(cluster, bytes.size() - i * cluster));
    ByteVector padded;
    if (plain.size() < cluster) {
      padded.assign(plain.begin(), plain.end());
      padded.resize(cluster);
      plain = padded;
    }
    auto stream = zstd ? ZstdEncode(plain, cluster - 1) : DeflateRaw(plain, cluster - 1);
    if (!stream) return std::move(stream).error();
    streams[i] = std::move(*stream);
    return Ok();
  }));
  return streams;
}

// Compressed clusters of one batch. They are placed first, then written (those that follow one
// another in one go), and only then does the mapping name them.
class StreamBatch {
 public:
  explicit StreamBatch(Core& core) : core_(core) {}
  ~StreamBatch() {
    for (const Placed& p : placed_) core_.refcounts.ReleaseSpan(p.offset, p.stream->size());
  }
  StreamBatch(const StreamBatch&) = delete;
  StreamBatch& operator=(const StreamBatch&) = delete;

  Status Place(uint64_t guest, const ByteVector& stream) {
    IMG_ASSIGN_OR_RETURN(uint64_t offset, core_.refcounts.AllocateBytes(stream.size()));
    placed_.push_back({guest, offset, &stream});
    const uint64_t limit = uint64_t{1} << std::min(core_.g().compressed_bits, 56u);
    if (RangeFits(offset, stream.size(), limit)) return Ok();
    return Error{ErrorCode::kNoSpace, "compressed data too far back", offset};
  }

  Status Finish() {
    for (size_t i = 0; i < placed_.size();) {
      const uint64_t offset = placed_[i].offset;
      ByteVector bytes;
      for (; i < placed_.size() && placed_[i].offset == offset + bytes.size(); ++i) {
        bytes.insert(bytes.end(), placed_[i].stream->begin(), placed_[i].stream->end());
      }
      IMG_RETURN_IF_ERROR(core_.file.Write(offset, bytes));
    }
    // From the back, so that what is not done yet can be given up again.
    for (; !placed_.empty(); placed_.pop_back()) IMG_RETURN_IF_ERROR(Map(placed_.back()));
    return Ok();
  }

 private:
  struct Placed {
    uint64_t guest, offset;
    const ByteVector* stream;
  };
  Status Map(const Placed& p) {
    IMG_ASSIGN_OR_RETURN(auto table, core_.WritableTable(core_.L1Index(p.guest)));
    const uint64_t index = core_.L2Index(p.guest);
    core_.ReleaseEntry(table->At(index));
    table->Set(index, EncodeCompressed(core_.g(), p.offset, p.stream->size()));
    return Ok();
  }
  Core& core_;
  std::vector<Placed> placed_;
};

Status StoreBatch(Core& core, uint64_t offset, Bytes bytes) {
  const uint64_t cluster = core.g().cluster_size;
  IMG_ASSIGN_OR_RETURN(auto streams, CompressAll(core, bytes));
  StreamBatch batch(core);
  for (size_t i = 0; i < streams.size(); ++i) {
    const uint64_t at = i * cluster;
    if (streams[i]) {
      IMG_RETURN_IF_ERROR(batch.Place(offset + at, *streams[i]));
    } else {
      Bytes plain = bytes.subspan(at, std::min(cluster, bytes.size() - at));
      IMG_RETURN_IF_ERROR(WriteGuest(core, offset + at, plain));
    }
  }
  return batch.Finish();
}

}  // namespace

Status CompressGuest(Core& core, uint64_t offset, Bytes bytes) {
  const uint64_t cluster = core.g().cluster_size;
  if (core.cipher != nullptr || core.context.data_file) {
    return Error{ErrorCode::kUnsupported,
                 "no compressed clusters in encrypted images or with an external data file",
                 {}};
  }
  if (!IsAligned(offset, cluster) ||
      (!IsAligned(bytes.size(), cluster) && offset + bytes.size() != core.size)) {
    return Error{ErrorCode::kInvalid, "compressed writes cover whole clusters", {}};
  }
  const uint64_t batch = AlignUp(std::max(kBatchBytes, cluster), cluster);
  while (!bytes.empty()) {
    Bytes now = bytes.first(std::min<uint64_t>(bytes.size(), batch));
    IMG_RETURN_IF_ERROR(StoreBatch(core, offset, now));
    IMG_RETURN_IF_ERROR(core.FlushIfFull());
    offset += now.size();
    bytes = bytes.subspan(now.size());
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
