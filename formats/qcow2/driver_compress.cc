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

// Streams that follow one another in the file, written in one go.
class StreamWriter {
 public:
  explicit StreamWriter(Core& core) : core_(core) {}

  Status Add(uint64_t offset, const ByteVector& stream) {
    if (offset != at_ + bytes_.size()) {
      IMG_RETURN_IF_ERROR(Finish());
      at_ = offset;
    }
    bytes_.insert(bytes_.end(), stream.begin(), stream.end());
    return Ok();
  }
  Status Finish() {
    if (bytes_.empty()) return Ok();
    IMG_RETURN_IF_ERROR(core_.file.Write(at_, bytes_));
    at_ += bytes_.size();
    bytes_.clear();
    return Ok();
  }

 private:
  Core& core_;
  uint64_t at_ = 0;
  ByteVector bytes_;
};

Status StoreStream(Core& core, uint64_t guest, const ByteVector& stream, StreamWriter* writer) {
  IMG_ASSIGN_OR_RETURN(auto table, core.WritableTable(core.L1Index(guest)));
  IMG_ASSIGN_OR_RETURN(uint64_t offset, core.refcounts.AllocateBytes(stream.size()));
  uint64_t limit = uint64_t{1} << std::min(core.g().compressed_bits, 56u);
  auto status = RangeFits(offset, stream.size(), limit)
                    ? writer->Add(offset, stream)
                    : Status(Error{ErrorCode::kNoSpace, "compressed data too far back", offset});
  if (!status) {
    core.refcounts.ReleaseSpan(offset, stream.size());
    return status;
  }
  uint64_t index = core.L2Index(guest);
  core.ReleaseEntry(table->At(index));
  table->Set(index, EncodeCompressed(core.g(), offset, stream.size()));
  return Ok();
}

Status StoreBatch(Core& core, uint64_t offset, Bytes bytes) {
  const uint64_t cluster = core.g().cluster_size;
  IMG_ASSIGN_OR_RETURN(auto streams, CompressAll(core, bytes));
  StreamWriter writer(core);
  Status status = Ok();
  for (size_t i = 0; i < streams.size() && status; ++i) {
    uint64_t at = i * cluster;
    if (streams[i]) {
      status = StoreStream(core, offset + at, *streams[i], &writer);
    } else {
      status =
          WriteGuest(core, offset + at, bytes.subspan(at, std::min(cluster, bytes.size() - at)));
    }
  }
  // Also after a failure: entries in memory already name these streams.
  auto written = writer.Finish();
  return status ? written : status;
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
