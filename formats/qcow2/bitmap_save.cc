// SPDX-License-Identifier: Apache-2.0
// How bitmaps begin and end a session of writing (sheet, section 13, rule 7). A session cut short
// leaves them marked as in use, or the whole extension marked as inconsistent.
#include <algorithm>

#include "formats/qcow2/bitmap_ops.h"

namespace imgfsck::qcow2 {

Status BitmapStore::MarkInUse() {
  const uint64_t incompatible = core_->header.incompatible_features;
  const uint64_t autoclear = core_->header.autoclear_features;
  IMG_RETURN_IF_ERROR(core_->SetFeatureBits(incompatible, autoclear & ~kAutoclearBitmaps));
  for (const Live& live : live_) {
    if (live.stale) continue;
    ByteVector flags(4);
    StoreBe(flags.data(), live.entry.flags | kBitmapInUse);
    IMG_RETURN_IF_ERROR(core_->file.Write(live.entry.host_offset + 12, flags));
  }
  IMG_RETURN_IF_ERROR(core_->file.Sync());
  return core_->SetFeatureBits(incompatible, autoclear);
}

Status BitmapStore::BeginWriting() {
  if (!consistent() || !core_->image->bitmaps_extension) return Ok();
  IMG_RETURN_IF_ERROR(LoadAll());
  if (std::ranges::all_of(live_, &Live::stale)) return Ok();
  return MarkInUse();
}

// Data and table, into fresh clusters.
Status BitmapStore::StoreBits(Live* live, std::vector<uint64_t>* clusters) {
  const uint64_t cluster = core_->g().cluster_size;
  live->bits.Tidy();
  const auto& pieces = live->bits.pieces();
  uint64_t table_clusters = std::max<uint64_t>(1, core_->g().ClustersOf(pieces.size() * 8));
  ByteVector table(table_clusters * cluster);
  for (size_t i = 0; i < pieces.size(); ++i) {
    uint64_t value = pieces[i].ones ? kBitmapAllOnes : 0;
    if (!pieces[i].bytes.empty()) {
      IMG_ASSIGN_OR_RETURN(HostRun run, core_->refcounts.Allocate(1));
      IMG_RETURN_IF_ERROR(core_->file.Write(run.offset, pieces[i].bytes));
      clusters->push_back(run.offset / cluster);
      value = run.offset;
    }
    StoreBe(&table[8 * i], value);
  }
  IMG_ASSIGN_OR_RETURN(uint64_t offset, core_->refcounts.AllocateExactly(table_clusters));
  IMG_RETURN_IF_ERROR(core_->file.Write(offset, table));
  for (uint64_t i = 0; i < table_clusters; ++i) clusters->push_back(offset / cluster + i);
  live->entry.table_offset = offset;
  live->entry.table_size = static_cast<uint32_t>(pieces.size());
  live->entry.flags &= ~kBitmapInUse;
  return Ok();
}

Result<BitmapsExtension> BitmapStore::StoreDirectory() {
  const uint64_t cluster = core_->g().cluster_size;
  ByteVector directory;
  for (const Live& live : live_) {
    ByteVector entry = EncodeBitmapEntry(live.entry);
    directory.insert(directory.end(), entry.begin(), entry.end());
  }
  if (directory.size() > kMaxBitmapDirectoryBytes) {
    return Error{ErrorCode::kTooLarge, "the bitmap directory would be too large", {}};
  }
  uint64_t clusters = core_->g().ClustersOf(directory.size());
  IMG_ASSIGN_OR_RETURN(uint64_t offset, core_->refcounts.AllocateExactly(clusters));
  BitmapsExtension extension{static_cast<uint32_t>(live_.size()), 0, directory.size(), offset};
  directory.resize(clusters * cluster);
  IMG_RETURN_IF_ERROR(core_->file.Write(offset, directory));
  return extension;
}

Status BitmapStore::Publish(const std::optional<BitmapsExtension>& extension) {
  const Extension* old = core_->image->extensions.Find(kExtBitmaps);
  uint64_t autoclear = core_->header.autoclear_features & ~kAutoclearBitmaps;
  if (extension) autoclear |= kAutoclearBitmaps;
  if (extension && old != nullptr && old->length == kBitmapsExtLength) {
    IMG_RETURN_IF_ERROR(
        core_->WriteHeaderBytes(old->offset + 8, EncodeBitmapsExtension(*extension)));
    IMG_RETURN_IF_ERROR(core_->file.Sync());
    return core_->SetFeatureBits(core_->header.incompatible_features, autoclear);
  }
  IMG_ASSIGN_OR_RETURN(HeaderArea area, HeaderArea::Parse(core_->image->first_cluster));
  std::optional<ByteVector> record;
  if (extension) record = EncodeBitmapsExtension(*extension);
  area.SetExtension(kExtBitmaps, record);
  area.header.autoclear_features = autoclear;
  return core_->RewriteHeader(std::move(area));
}

Status BitmapStore::Save() {
  if (!loaded_) return Ok();
  const Image& image = *core_->image;
  if (live_.empty() && !image.bitmaps_extension) {
    loaded_ = false;
    return Ok();
  }
  std::vector<uint64_t> old = garbage_;
  for (Live& live : live_) {
    if (live.stale) continue;
    std::vector<uint64_t> clusters;
    IMG_RETURN_IF_ERROR(StoreBits(&live, &clusters));
    old.insert(old.end(), live.clusters.begin(), live.clusters.end());
    live.clusters = std::move(clusters);
  }
  std::optional<BitmapsExtension> extension;
  if (!live_.empty()) {
    IMG_ASSIGN_OR_RETURN(extension, StoreDirectory());
  }
  IMG_RETURN_IF_ERROR(core_->Flush());
  if (core_->lazy()) IMG_RETURN_IF_ERROR(core_->refcounts.Write());
  IMG_RETURN_IF_ERROR(core_->file.Sync());
  IMG_RETURN_IF_ERROR(Publish(extension));
  if (image.bitmaps_extension && image.bitmaps.readable) {
    core_->refcounts.ReleaseSpan(image.bitmaps.offset, image.bitmaps.size);
  }
  for (uint64_t cluster : old) core_->refcounts.Release(cluster);
  core_->image->bitmaps_extension = extension;
  core_->image->bitmaps = extension
                              ? ParseBitmapDirectory(core_->file.source(), core_->g(), *extension)
                              : BitmapDirectory();
  loaded_ = false;
  live_.clear();
  garbage_.clear();
  return Ok();
}

}  // namespace imgfsck::qcow2
