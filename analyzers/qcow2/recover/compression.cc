// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/compression.h"

#include "analyzers/qcow2/columns.h"
#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/l2_walk.h"
#include "base/interrupt.h"
#include "formats/common/deflate.h"

namespace imgfsck::qcow2 {
namespace {

constexpr int kMostStreams = 16;  // tried before giving up

std::optional<CompressionType> Decode(const Image& image, const Entry& entry) {
  CompressedSpan span = DecodeCompressed(image.geometry, entry.descriptor);
  ByteVector in(span.length), out(image.geometry.cluster_size);
  if (!ReadPadded(*image.source, span.offset, in)) return std::nullopt;
  if (InflateRaw(in, out)) return kDeflate;
  if (ZstdDecode(in, out)) return kZstd;
  return std::nullopt;
}

}  // namespace

std::optional<CompressionType> ProbeCompression(const Image& image) {
  const Geometry& g = image.geometry;
  Columns columns(image);
  std::vector<TableRef> tables;
  std::vector<HostRange> bad;
  ByteVector bytes(g.cluster_size);
  int tried = 0;
  for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
    columns.Read(begin, begin + columns.ChunkSize(), &tables, nullptr, &bad);
    for (const TableRef& table : tables) {
      if (!CheckStop()) return std::nullopt;
      ReadTolerant(*image.source, table.offset, bytes, &bad);
      if (Implausible(image, bytes)) continue;
      for (uint64_t i = 0; i < g.l2_entries; ++i) {
        Entry entry = LoadEntry(g, bytes, i);
        if (!entry.compressed() || ClaimOf(image, entry).kind == EntryClaim::Kind::kNone) continue;
        if (auto type = Decode(image, entry)) return type;
        if (++tried == kMostStreams) return std::nullopt;
      }
    }
  }
  return std::nullopt;
}

}  // namespace imgfsck::qcow2
