// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps: what is sound stays; a bitmap whose content cannot be trusted is marked in
// use, so that no reader trusts it; a list or a table that was lost is taken back when it is found
// beyond doubt; what makes QEMU refuse the image and cannot be mended goes, and the image opens
// again. Given back are only clusters proven to be a bitmap's; others are left to the lost-found
// pass.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/qcow2/metadata.h"
#include "repair/qcow2/bitmap_mend.h"
#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kBitmapsProblems = {
    Problem::kQcow2BitmapExtLength,     Problem::kQcow2BitmapExtReserved,
    Problem::kQcow2BitmapCount,         Problem::kQcow2BitmapAutoOrphan,
    Problem::kQcow2BitmapAutoUnset,     Problem::kQcow2BitmapV2,
    Problem::kQcow2BitmapDirUnaligned,  Problem::kQcow2BitmapDirSize,
    Problem::kQcow2BitmapEntryPadding,  Problem::kQcow2BitmapName,
    Problem::kQcow2BitmapNameDuplicate, Problem::kQcow2BitmapType,
    Problem::kQcow2BitmapGranularity,   Problem::kQcow2BitmapFlags,
    Problem::kQcow2BitmapExtra,         Problem::kQcow2BitmapTableOffset,
    Problem::kQcow2BitmapTableSize,     Problem::kQcow2BitmapTentryReserved,
    Problem::kQcow2BitmapTentryOffset,  Problem::kQcow2BitmapTailBits,
    Problem::kQcow2BitmapInUse};
// Clusters that were a dropped bitmap's but cannot be proven to be; lost-found keeps them.
constexpr Problem kBitmapsMayAdd[] = {Problem::kQcow2RefcountLeak};

class BitmapRepair {
 public:
  explicit BitmapRepair(const PassContext& context)
      : state_(StateOf(context.report)),
        image_(*state_.image),
        editor_(context.image, state_),
        search_(context.image, state_),
        mender_(context, search_, &editor_, &outcome_) {}

  Result<PassOutcome> Run() {
    if (!state_.counts_compared) {
      outcome_.notes.push_back("dirty bitmaps are left until the stored counts can be read");
      return outcome_;
    }
    const bool listed = image_.extensions.Find(kExtBitmaps) != nullptr;
    if (!image_.header.is_v3()) {
      if (listed) IMG_RETURN_IF_ERROR(DropAll(image_.bitmaps));
      return outcome_;
    }
    auto list = TheList();
    if (!list) {
      IMG_RETURN_IF_ERROR(DropAll({}));
      return outcome_;
    }
    for (Bitmap& bitmap : list->entries)
      IMG_RETURN_IF_ERROR(Consider(std::move(bitmap), list->found));
    if (keep_.empty()) {
      IMG_RETURN_IF_ERROR(FreeClusters(list->offset, list->size));
      IMG_RETURN_IF_ERROR(DropAll({}));
      return outcome_;
    }
    IMG_RETURN_IF_ERROR(WriteDirectory(*list));
    return outcome_;
  }

 private:
  uint64_t cluster_size() const { return image_.geometry.cluster_size; }

  // The directory's entries: as they were read where they add up, else as they can be made out.
  std::optional<BitmapList> TheList() const {
    const BitmapDirectory& directory = image_.bitmaps;
    const auto& extension = image_.bitmaps_extension;
    if (!extension) {
      // Too short to lead to a directory, or gone while its mark in the header stayed.
      const Extension* record = image_.extensions.Find(kExtBitmaps);
      bool counted = record != nullptr && record->data.size() >= 4;
      return search_.FindDirectory(counted ? BeAt<uint32_t>(record->data, 0) : 0);
    }
    bool adds_up = directory.readable && !directory.broken &&
                   std::ranges::all_of(directory.entries, [](const Bitmap& b) {
                     return !b.name.empty() && b.name.size() <= kMaxBitmapName &&
                            (b.extra_data_size == 0 || (b.flags & kBitmapExtraCompatible) != 0);
                   });
    if (adds_up) return BitmapList{directory.offset, directory.size, directory.entries, false};
    uint64_t offset = AlignDown(extension->directory_offset, cluster_size());
    uint64_t size = directory.readable ? directory.size : 0;
    auto list = search_.Reread(offset, size, extension->nb_bitmaps);
    // Its number may be right where its size is not.
    if (!list && size != 0) list = search_.Reread(offset, 0, extension->nb_bitmaps);
    if (list) {
      list->found = offset != extension->directory_offset;
      if (list->found && !OrphanList(*list)) return std::nullopt;
      return list;
    }
    if (directory.readable && !directory.entries.empty()) {
      return BitmapList{directory.offset, directory.size, directory.entries, false};
    }
    return search_.FindDirectory(extension->nb_bitmaps);
  }
  bool OrphanList(const BitmapList& list) const {
    return search_.IsOrphan(list.offset) && std::ranges::all_of(list.entries, [&](const Bitmap& b) {
             return search_.IsOrphanTable(b);
           });
  }

  // Keeps the bitmap, mended, or drops it.
  Status Consider(Bitmap b, bool found) {
    const Bitmap stored = b;
    if (!mender_.MendEntry(&b, keep_)) {
      outcome_.particulars.push_back(
          fmt::format("the dirty bitmap \"{}\" was dropped", Printable(b.name)));
      ++outcome_.changes;
      return FreeBitmap(stored, found);
    }
    if (found) b.flags |= kBitmapInUse;
    IMG_RETURN_IF_ERROR(mender_.MendTable(&b));
    keep_.push_back(std::move(b));
    return Ok();
  }

  uint64_t Cluster(uint64_t offset) const { return offset >> image_.geometry.cluster_bits; }

  // Gives the cluster at `offset` back when it is counted once and nobody has it but the `claims`
  // of the bitmap.
  Status Release(uint64_t offset, uint64_t claims) {
    uint64_t cluster = Cluster(offset);
    if (!state_.counts_compared || state_.claims().Count(cluster) != claims ||
        StoredCount(image_, cluster) != 1) {
      return Ok();
    }
    return editor_.SetCount(cluster, 0);
  }
  Status FreeClusters(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += cluster_size()) {
      IMG_RETURN_IF_ERROR(Release(offset + at, state_.claims().IsMeta(Cluster(offset + at))));
    }
    return Ok();
  }
  // The clusters of a bitmap whose table is sound; of another nobody knows which they are.
  Status FreeBitmap(const Bitmap& b, bool found) {
    std::vector<uint64_t> table = LoadBitmapTable(image_, b);
    if (table.empty() || !search_.IsSound(table)) return Ok();
    for (uint64_t entry : table) {
      uint64_t offset = entry & kOffsetMask;
      if (offset != 0) IMG_RETURN_IF_ERROR(Release(offset, found ? 0 : 1));
    }
    return FreeClusters(b.table_offset, table.size() * 8);
  }

  // `directory`: its bitmaps are given back with it.
  Status DropAll(const BitmapDirectory& directory) {
    if (directory.readable && !directory.broken && !directory.entries.empty()) {
      for (const Bitmap& b : directory.entries) IMG_RETURN_IF_ERROR(FreeBitmap(b, false));
      IMG_RETURN_IF_ERROR(FreeClusters(directory.offset, directory.size));
    }
    ByteVector cluster;
    IMG_RETURN_IF_ERROR(ReadFirstCluster(&cluster));
    Header header = image_.header;
    header.autoclear_features &= ~kAutoclearBitmaps;
    EncodeHeader(header, cluster);
    if (image_.extensions.Find(kExtBitmaps) != nullptr) {
      RewriteExtensions(image_.extensions, cluster,
                        [](const Extension& e) { return e.type != kExtBitmaps; });
      outcome_.particulars.push_back(
          "the list of persistent bitmaps was dropped: the next backup has to be a full one");
    }
    ++outcome_.changes;
    return editor_.Write(0, cluster);
  }
  // As the editor may have changed it.
  Status ReadFirstCluster(ByteVector* cluster) const {
    cluster->resize(image_.first_cluster.size());
    return editor_.Read(0, *cluster);
  }

  Status WriteDirectory(const BitmapList& list) {
    ByteVector bytes;
    for (const Bitmap& b : keep_) {
      ByteVector entry = EncodeBitmapEntry(b);
      bytes.insert(bytes.end(), entry.begin(), entry.end());
    }
    BitmapsExtension e;
    e.directory_offset = list.offset;
    e.nb_bitmaps = static_cast<uint32_t>(keep_.size());
    e.directory_size = bytes.size();
    const uint64_t room = AlignUp(list.size, cluster_size());
    const uint64_t used = AlignUp(bytes.size(), cluster_size());
    if (used > room) {
      IMG_RETURN_IF_ERROR(FreeClusters(list.offset, list.size));
      IMG_ASSIGN_OR_RETURN(e.directory_offset, editor_.Allocate(used / cluster_size()));
    } else {
      IMG_RETURN_IF_ERROR(FreeClusters(list.offset + used, room - used));
    }
    ByteVector old(bytes.size());
    IMG_RETURN_IF_ERROR(editor_.Read(e.directory_offset, old));
    outcome_.changes += old != bytes;
    IMG_RETURN_IF_ERROR(editor_.Write(e.directory_offset, bytes));
    if (list.found) {
      outcome_.particulars.push_back(
          "the list of persistent bitmaps was found in the file; they are marked as not to be "
          "trusted");
    }
    return WriteExtension(e);
  }

  Status WriteExtension(const BitmapsExtension& e) {
    ByteVector encoded = EncodeBitmapsExtension(e);
    const Extension* record = image_.extensions.Find(kExtBitmaps);
    if (record != nullptr && record->length == encoded.size()) {
      outcome_.changes += !std::ranges::equal(encoded, record->data);
      IMG_RETURN_IF_ERROR(editor_.Write(record->offset + 8, encoded));
      uint64_t features = image_.header.autoclear_features | kAutoclearBitmaps;
      if (features == image_.header.autoclear_features) return Ok();
      ++outcome_.changes;
      return editor_.Write64(88, features);
    }
    HeaderArea area = AreaOf(image_);
    ByteVector fields(area.fields.size());
    IMG_RETURN_IF_ERROR(editor_.Read(0, fields));  // the editor may have moved the refcount table
    area.header = ParseHeader(fields);
    area.header.autoclear_features |= kAutoclearBitmaps;
    area.fields = std::move(fields);
    area.SetExtension(kExtBitmaps, std::move(encoded));
    IMG_ASSIGN_OR_RETURN(const ByteVector cluster, EncodeFirstCluster(image_, std::move(area)));
    ++outcome_.changes;
    return editor_.Write(0, cluster);
  }

  const CheckState& state_;
  const Image& image_;
  Editor editor_;
  BitmapSearch search_;
  BitmapMender mender_;
  std::vector<Bitmap> keep_;
  PassOutcome outcome_;
};

// Giving back leaks alone does not include dropping a bitmap.
bool BitmapsWanted(const CheckReport& report, const RepairOptions& options) {
  if (!StateOf(report).walked || !WantedAny(report, options, kBitmapsProblems)) return false;
  return options.mode != RepairMode::kLeaks ||
         std::ranges::all_of(kBitmapsProblems, [&](Problem problem) {
           return !report.findings.Has(problem) || Allowed(problem, options) ||
                  InfoOf(problem).severity < Severity::kLeak;
         });
}

}  // namespace

const Pass kBitmapPass{"bitmaps",
                       48,
                       "mend or drop persistent bitmaps that cannot be trusted",
                       BitmapsWanted,
                       [](const PassContext& context) { return BitmapRepair(context).Run(); },
                       {},
                       kBitmapsMayAdd};

}  // namespace imgfsck::qcow2
