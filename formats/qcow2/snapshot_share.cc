// SPDX-License-Identifier: Apache-2.0
// Sharing one L2 table between two L1 tables, and copying what cannot be shared because refcounts
// are too narrow. What is made here is referred to by nobody until its caller says so.
#include <algorithm>

#include "formats/common/deflate.h"
#include "formats/qcow2/snapshot_ops.h"

namespace imgfsck::qcow2 {
namespace {

Result<bool> CanRaise(Core& core, uint64_t offset, uint64_t length) {
  uint64_t end = core.g().ClustersOf(SaturatingAdd(offset, length));
  for (uint64_t cluster = offset / core.g().cluster_size; cluster < end; ++cluster) {
    IMG_ASSIGN_OR_RETURN(uint64_t count, core.refcounts.Get(cluster));
    if (count >= core.g().MaxRefcount()) return false;
  }
  return true;
}

// The host bytes that an entry refers to; length 0: none.
CompressedSpan SpanOf(const Core& core, const Entry& entry) {
  if (entry.compressed()) {
    CompressedSpan span = DecodeCompressed(core.g(), entry.descriptor);
    uint64_t end = AlignUp(core.file.Size(), core.g().cluster_size);
    span.length = span.offset < end ? std::min(span.length, end - span.offset) : span.length;
    return span;
  }
  return {entry.host(), entry.host() == 0 ? 0 : core.g().cluster_size};
}

// Several streams of one table may share a host cluster: counting up to the limit one by one is
// only right when all of them fit.
Result<bool> CanShare(Core& core, const L2Table& table) {
  IMG_ASSIGN_OR_RETURN(bool can, CanRaise(core, table.offset(), 1));
  const uint64_t room = core.g().MaxRefcount();
  for (uint64_t i = 0; can && i < core.g().l2_entries; ++i) {
    CompressedSpan span = SpanOf(core, table.At(i));
    if (span.length == 0) continue;
    uint64_t end = core.g().ClustersOf(span.end());
    for (uint64_t c = span.offset / core.g().cluster_size; can && c < end; ++c) {
      IMG_ASSIGN_OR_RETURN(uint64_t count, core.refcounts.Get(c));
      // All references of this layer double at most.
      can = count < room && (!table.At(i).compressed() || count <= room / 2);
    }
  }
  return can;
}

Result<Entry> CopyStream(Core& core, const CompressedSpan& span) {
  ByteVector stream(span.length);
  IMG_RETURN_IF_ERROR(core.file.Read(span.offset, stream));
  // The entry counts whole sectors; how long the stream really is only decoding tells.
  ByteVector plain(core.g().cluster_size);
  size_t used = stream.size();
  auto decoded = core.header.compression_type == kZstd ? ZstdDecode(stream, plain, &used)
                                                       : InflateRaw(stream, plain, &used);
  if (!decoded) used = stream.size();  // not ours to judge
  stream.resize(std::min<uint64_t>(used, core.g().cluster_size));
  uint64_t offset = 0;
  if (stream.size() < core.g().cluster_size) {
    IMG_ASSIGN_OR_RETURN(offset, core.refcounts.AllocateBytes(stream.size()));
  } else {
    IMG_ASSIGN_OR_RETURN(HostRun run, core.refcounts.Allocate(1));
    offset = run.offset;
  }
  IMG_RETURN_IF_ERROR(core.file.Write(offset, stream));
  return EncodeCompressed(core.g(), offset, stream.size());
}

Result<Entry> CopyCluster(Core& core, const Entry& entry, uint64_t guest) {
  if (entry.compressed()) return CopyStream(core, SpanOf(core, entry));
  ByteVector bytes(core.g().cluster_size);
  IMG_RETURN_IF_ERROR(core.file.Read(entry.host(), bytes));
  IMG_ASSIGN_OR_RETURN(HostRun run, core.refcounts.Allocate(1));
  if (core.cipher != nullptr) {
    IMG_RETURN_IF_ERROR(core.cipher->Decrypt(guest, entry.host(), bytes));
    IMG_RETURN_IF_ERROR(core.cipher->Encrypt(guest, run.offset, bytes));
  }
  IMG_RETURN_IF_ERROR(core.file.Write(run.offset, bytes));
  Entry copy = entry;
  copy.descriptor = (entry.descriptor & ~(kOffsetMask | kCopied)) | run.offset;
  return copy;
}

void ClearCopied(const Core& core, L2Table* table, uint64_t index) {
  Entry entry = table->At(index);
  if (entry.compressed() || !entry.copied() || core.context.data_file) return;
  entry.descriptor &= ~kCopied;
  table->Set(index, entry);
}

Result<uint64_t> CopyTable(Core& core, uint64_t l1_index, L2Table* table) {
  IMG_ASSIGN_OR_RETURN(HostRun run, core.refcounts.Allocate(1));
  auto copy = core.tables.Make(run.offset, table);
  for (uint64_t i = 0; i < core.g().l2_entries; ++i) {
    Entry entry = table->At(i);
    CompressedSpan span = SpanOf(core, entry);
    if (span.length == 0) continue;
    auto raised = core.refcounts.RaiseSpan(span.offset, span.length);
    if (raised) {
      ClearCopied(core, table, i);
      ClearCopied(core, copy.get(), i);
      continue;
    }
    if (raised.error().code != ErrorCode::kTooLarge) return std::move(raised).error();
    uint64_t guest = l1_index * core.g().l2_span + i * core.g().cluster_size;
    IMG_ASSIGN_OR_RETURN(Entry moved, CopyCluster(core, entry, guest));
    copy->Set(i, moved);
  }
  return run.offset;
}

}  // namespace

Result<uint64_t> ShareTable(Core& core, uint64_t l1_index, uint64_t offset) {
  IMG_ASSIGN_OR_RETURN(auto table, core.tables.Get(offset));
  IMG_ASSIGN_OR_RETURN(bool can, CanShare(core, *table));
  if (!can) return CopyTable(core, l1_index, table.get());
  IMG_RETURN_IF_ERROR(core.refcounts.Raise(offset / core.g().cluster_size));
  for (uint64_t i = 0; i < core.g().l2_entries; ++i) {
    CompressedSpan span = SpanOf(core, table->At(i));
    if (span.length == 0) continue;
    IMG_RETURN_IF_ERROR(core.refcounts.RaiseSpan(span.offset, span.length));
    ClearCopied(core, table.get(), i);
  }
  return offset;
}

}  // namespace imgfsck::qcow2
