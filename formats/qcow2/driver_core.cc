// SPDX-License-Identifier: Apache-2.0
// The order in which changes reach the disk (sheet, section 13), and L2 tables for writing.
#include "formats/qcow2/driver_core.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/bitmap_ops.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kMostReleases = 1 << 20;  // waiting for a flush

}  // namespace

Error DamagedAt(const std::string& what, uint64_t offset) {
  return {ErrorCode::kInvalid, fmt::format("damaged image, host offset {:#x}: {}", offset, what),
          offset};
}

Core::~Core() = default;

Status Core::WriteL1() {
  for (auto at = l1_dirty.begin(); at != l1_dirty.end();) {
    uint64_t first = *at, count = 0;
    ByteVector bytes;
    for (; at != l1_dirty.end() && *at == first + count; ++at, ++count) {
      bytes.resize(bytes.size() + 8);
      StoreBe(&bytes[8 * count], l1[*at]);
    }
    IMG_RETURN_IF_ERROR(file.Write(l1_offset + 8 * first, bytes));
  }
  l1_dirty.clear();
  return Ok();
}

Status Core::ApplyReleases() {
  std::vector<uint64_t> freed;
  IMG_RETURN_IF_ERROR(refcounts.ApplyReleases(&freed));
  if (punch.empty()) return Ok();
  std::ranges::sort(freed);
  for (uint64_t cluster : punch) {
    if (!std::ranges::binary_search(freed, cluster)) continue;
    uint64_t offset = cluster * g().cluster_size;
    if (offset >= file.Size()) continue;
    uint64_t length = std::min(g().cluster_size, file.Size() - offset);
    IMG_RETURN_IF_ERROR(file.Zero(offset, length));
  }
  punch.clear();
  return Ok();
}

// Raised counts and new data; then L2 tables; then the L1 table; lowered counts last. With lazy
// refcounts the dirty bit is set, and counts follow when the image is closed.
Status Core::Flush() {
  if (!writing) return Ok();
  if (data != &file) IMG_RETURN_IF_ERROR(data->Sync());
  if (!lazy()) IMG_RETURN_IF_ERROR(refcounts.Write());
  IMG_RETURN_IF_ERROR(file.Sync());
  if (tables.HasDirty()) {
    IMG_RETURN_IF_ERROR(tables.WriteDirty());
    IMG_RETURN_IF_ERROR(file.Sync());
  }
  IMG_RETURN_IF_ERROR(WriteL1());
  IMG_RETURN_IF_ERROR(file.Sync());
  if (refcounts.ReleasesPending() > 0) {
    IMG_RETURN_IF_ERROR(ApplyReleases());
    if (!lazy()) IMG_RETURN_IF_ERROR(refcounts.Write());
  }
  return file.Sync();
}

Status Core::FlushIfFull() {
  if (!tables.TooManyDirty() && refcounts.ReleasesPending() < kMostReleases) return Ok();
  return Flush();
}

Status Core::Close() {
  if (!writing || corrupt) return Ok();
  IMG_RETURN_IF_ERROR(Flush());
  IMG_RETURN_IF_ERROR(bitmaps->Save());
  IMG_RETURN_IF_ERROR(Flush());
  if (lazy()) {
    IMG_RETURN_IF_ERROR(refcounts.Write());
    IMG_RETURN_IF_ERROR(file.Sync());
    IMG_RETURN_IF_ERROR(
        SetFeatureBits(header.incompatible_features & ~kIncompatDirty, header.autoclear_features));
  }
  writing = false;
  return Ok();
}

Status Core::Finish(Status status) {
  if (status || !refcounts.damage_found() || corrupt) return status;
  corrupt = true;
  if (header.is_v3() && writing) {
    auto marked =
        SetFeatureBits(header.incompatible_features | kIncompatCorrupt, header.autoclear_features);
    if (!marked) return status;  // the first error says more
  }
  return status;
}

void Core::SetL1(uint64_t index, uint64_t entry) {
  l1[index] = entry;
  l1_dirty.insert(index);
}

Result<std::shared_ptr<L2Table>> Core::WritableTable(uint64_t l1_index) {
  const uint64_t entry = l1[l1_index], offset = entry & kOffsetMask;
  if (offset != 0 && (entry & kCopied) != 0) {
    if (metadata.fixed.Overlaps(offset, g().cluster_size)) {
      return refcounts.ReportDamage(offset, "an L2 table lies on other metadata");
    }
    return tables.Get(offset);
  }
  std::shared_ptr<L2Table> old;
  if (offset != 0) {
    IMG_ASSIGN_OR_RETURN(old, tables.Get(offset));
  }
  IMG_ASSIGN_OR_RETURN(HostRun run, refcounts.Allocate(1));
  auto table = tables.Make(run.offset, old.get());
  metadata.tables.Insert(run.offset, g().cluster_size);
  SetL1(l1_index, run.offset | kCopied);
  if (old != nullptr) {
    metadata.tables.Erase(offset, g().cluster_size);
    refcounts.Release(offset / g().cluster_size);
  }
  return table;
}

void Core::ReleaseEntry(const Entry& entry) {
  if (entry.compressed()) {
    CompressedSpan span = DecodeCompressed(g(), entry.descriptor);
    refcounts.ReleaseSpan(span.offset, span.length);
  } else if (entry.host() != 0 && !context.data_file) {
    refcounts.Release(entry.host() / g().cluster_size);
  }
}

Status Core::DropTable(uint64_t l1_index) {
  const uint64_t offset = l1[l1_index] & kOffsetMask;
  if (offset != 0) {
    IMG_ASSIGN_OR_RETURN(auto table, tables.Get(offset));
    for (uint64_t i = 0; i < g().l2_entries; ++i) ReleaseEntry(table->At(i));
    refcounts.Release(offset / g().cluster_size);
    tables.Drop(offset);
    metadata.tables.Erase(offset, g().cluster_size);
  }
  if (l1[l1_index] != 0) SetL1(l1_index, 0);
  return Ok();
}

Status Core::WriteHeaderBytes(uint64_t offset, Bytes bytes) {
  // Where a write failed, nobody knows what is there now.
  if (header_unknown_) IMG_RETURN_IF_ERROR(file.Write(0, image->first_cluster));
  header_unknown_ = true;
  IMG_RETURN_IF_ERROR(file.Write(offset, bytes));
  header_unknown_ = false;
  std::ranges::copy(bytes, image->first_cluster.begin() + static_cast<ptrdiff_t>(offset));
  header = ParseHeader(image->first_cluster);
  return Ok();
}

// Each set of features is one write; whoever reads in between sees a state that is allowed.
Status Core::SetFeatureBits(uint64_t incompatible, uint64_t autoclear) {
  ByteVector bits(8);
  if (incompatible != header.incompatible_features) {
    StoreBe(bits.data(), incompatible);
    IMG_RETURN_IF_ERROR(WriteHeaderBytes(72, bits));
  }
  if (autoclear != header.autoclear_features) {
    StoreBe(bits.data(), autoclear);
    IMG_RETURN_IF_ERROR(WriteHeaderBytes(88, bits));
  }
  return file.Sync();
}

Status Core::RewriteHeader(HeaderArea area) {
  IMG_ASSIGN_OR_RETURN(ByteVector cluster, area.Encode());
  IMG_RETURN_IF_ERROR(WriteHeaderBytes(0, cluster));
  image->extensions = ParseExtensions(header, image->first_cluster);
  image->backing_name = area.backing_name;
  return file.Sync();
}

}  // namespace imgfsck::qcow2
