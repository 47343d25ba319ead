// SPDX-License-Identifier: Apache-2.0
// The deep check (rows 62 to 65 and 151): every compressed cluster is decoded, on all cores; holes
// of the host file inside data clusters are counted.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/state.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"
#include "formats/common/deflate.h"

namespace imgfsck::qcow2 {
namespace {

// A compressed entry of one distinct table.
struct Stream {
  TableRef table;
  uint64_t index = 0;
  CompressedSpan span;
  uint64_t consumed = 0;  // bytes of the stream itself; 0: could not be decoded
};

class DeepCheck {
 public:
  DeepCheck(const CheckState& state, const CheckOptions& options, Findings* findings)
      : state_(state), image_(*state.image), g_(image_.geometry), options_(options),
        findings_(findings) {}

  Status Run() {
    IMG_RETURN_IF_ERROR(DecodeAll());
    JudgeOverlaps();
    JudgeHoles();
    return Ok();
  }

 private:
  bool Decode(Stream* stream, uint64_t extra_sectors) const {
    uint64_t length = stream->span.length + extra_sectors * kCompressedSector;
    if (stream->span.offset >= image_.file_size) return false;
    length = std::min(length, image_.file_size - stream->span.offset);
    ByteVector in(length), out(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, stream->span.offset, in, &bad);
    size_t consumed = 0;
    Status status = image_.header.compression_type == kZstd ? ZstdDecode(in, out, &consumed)
                                                            : InflateRaw(in, out, &consumed);
    stream->consumed = status ? consumed : 0;
    return status.has_value();
  }

  void JudgeStream(Stream* stream, Findings* out) const {
    auto add = [&](Problem problem, std::string detail) {
      out->Add(EntryFinding(image_, stream->table, stream->index, problem, std::move(detail)));
    };
    std::string where =
        fmt::format("{} bytes at {}", stream->span.length, Hex(stream->span.offset));
    if (!Decode(stream, 0)) {
      // One cluster of output never needs more than about one cluster of input.
      bool longer = Decode(stream, g_.cluster_size / kCompressedSector);
      add(longer ? Problem::kQcow2ComprShortSpan : Problem::kQcow2ComprUndecodable, where);
      return;
    }
    uint64_t last = stream->span.offset + stream->consumed - 1;
    if (last >> g_.cluster_bits < (stream->span.end() - 1) >> g_.cluster_bits) {
      add(Problem::kQcow2ComprLongSpan, fmt::format("{}, {} used", where, stream->consumed));
    }
  }

  Status DecodeTable(const TableRef& table) {
    ByteVector bytes(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, table.offset, bytes, &bad);
    std::vector<Stream> streams;
    if (Implausible(image_, bytes)) return Ok();
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      Entry entry = LoadEntry(g_, bytes, i);
      if (!entry.compressed() || ClaimOf(image_, entry).kind == EntryClaim::Kind::kNone) continue;
      streams.push_back({table, i, DecodeCompressed(g_, entry.descriptor), 0});
    }
    if (streams.empty()) return Ok();
    constexpr size_t kBatch = 64;
    size_t batches = DivRoundUp(streams.size(), kBatch);
    std::vector<Findings> found(batches, Findings(findings_->keep()));
    IMG_RETURN_IF_ERROR(ParallelFor(
        batches, options_.threads == 0 ? UsableCores() : options_.threads,
        [&](unsigned, size_t batch) -> Status {
          size_t end = std::min(streams.size(), (batch + 1) * kBatch);
          for (size_t i = batch * kBatch; i < end; ++i) JudgeStream(&streams[i], &found[batch]);
          return CheckStop();
        }));
    for (Findings& f : found) findings_->Merge(std::move(f));
    for (const Stream& stream : streams) {
      if (stream.consumed != 0 && streams_.size() < kMaxStreams) streams_.push_back(stream);
    }
    return Ok();
  }

  Status DecodeAll() {
    std::vector<TableRef> tables;
    std::vector<HostRange> bad;
    const Columns& columns = *state_.columns;
    for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
      uint64_t end = std::min(begin + columns.ChunkSize(), columns.count());
      columns.Read(begin, end, &tables, nullptr, &bad);
      for (size_t i = 0; i < tables.size(); ++i) {
        IMG_RETURN_IF_ERROR(DecodeTable(tables[i]));
        if (options_.progress) {
          options_.progress("compressed clusters", begin + (end - begin) * i / tables.size(),
                            columns.count());
        }
      }
    }
    return Ok();
  }

  // Streams of different guest clusters must not run into one another.
  void JudgeOverlaps() {
    std::stable_sort(streams_.begin(), streams_.end(), [](const Stream& a, const Stream& b) {
      return std::tie(a.span.offset, a.table.column, a.index) <
             std::tie(b.span.offset, b.table.column, b.index);
    });
    for (size_t i = 1; i < streams_.size(); ++i) {
      const Stream &a = streams_[i - 1], &b = streams_[i];
      bool same_guest = a.table.column == b.table.column && a.index == b.index;
      if (same_guest || a.span.offset + a.consumed <= b.span.offset) continue;
      Finding f = EntryFinding(image_, b.table, b.index, Problem::kQcow2ComprOverlap,
                               fmt::format("stream at {}", Hex(b.span.offset)));
      Finding other = EntryFinding(image_, a.table, a.index, Problem::kQcow2ComprOverlap);
      f.also.push_back({other.layer, other.guest, other.structure});
      findings_->Add(std::move(f));
    }
  }

  // Data clusters without a byte of their own in the host file: preallocated, or punched by an
  // accident that no metadata shows.
  void JudgeHoles() {
    uint64_t found = 0, first = 0;
    for (uint64_t at = 0; at < image_.file_size;) {
      auto extent = image_.source->ExtentAt(at);
      if (!extent || extent->length == 0) break;
      if (extent->hole) {
        uint64_t end = (at + extent->length) >> g_.cluster_bits;
        for (uint64_t c = DivRoundUp(at, g_.cluster_size); c < end; ++c) {
          if (!state_.claims().IsData(c)) continue;
          if (found++ == 0) first = c;
        }
      }
      at += extent->length;
    }
    if (found == 0) return;
    Finding f;
    f.problem = Problem::kQcow2DataHole;
    f.structure = "data";
    f.host = MakeHostRange(first << g_.cluster_bits, g_.cluster_size);
    f.count = found;
    if (findings_->Units(Severity::kCorruption) > 0) f.severity = Severity::kWarning;
    findings_->Add(std::move(f));
  }

  static constexpr size_t kMaxStreams = 8 << 20;
  const CheckState& state_;
  const Image& image_;
  const Geometry& g_;
  const CheckOptions& options_;
  Findings* findings_;
  std::vector<Stream> streams_;
};

}  // namespace

Status JudgeDeep(const CheckState& state, const CheckOptions& options, Findings* findings) {
  return DeepCheck(state, options, findings).Run();
}

}  // namespace imgfsck::qcow2
