// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps: what is sound stays; a bitmap whose content cannot be trusted is marked in
// use, so that no reader trusts it; an entry that makes QEMU refuse the image goes; a directory
// that cannot be read goes as a whole, and the image opens again.
#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/metadata.h"
#include "repair/qcow2/extension_area.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kProblems = {
    Problem::kQcow2BitmapExtLength,     Problem::kQcow2BitmapExtReserved,
    Problem::kQcow2BitmapCount,         Problem::kQcow2BitmapAutoUnset,
    Problem::kQcow2BitmapV2,            Problem::kQcow2BitmapDirUnaligned,
    Problem::kQcow2BitmapDirSize,       Problem::kQcow2BitmapName,
    Problem::kQcow2BitmapNameDuplicate, Problem::kQcow2BitmapType,
    Problem::kQcow2BitmapGranularity,   Problem::kQcow2BitmapFlags,
    Problem::kQcow2BitmapExtra,         Problem::kQcow2BitmapTableOffset,
    Problem::kQcow2BitmapTableSize,     Problem::kQcow2BitmapTentryReserved,
    Problem::kQcow2BitmapTentryOffset,  Problem::kQcow2BitmapTailBits};

class BitmapRepair {
 public:
  explicit BitmapRepair(const PassContext& context)
      : context_(context), state_(StateOf(context.report)), image_(*state_.image),
        editor_(context.image, state_), directory_(image_.bitmaps) {}

  Result<PassOutcome> Run() {
    if (image_.extensions.Find(kExtBitmaps) == nullptr) return outcome_;
    bool hopeless = !image_.bitmaps_extension || !directory_.readable || !image_.header.is_v3();
    if (hopeless) {
      IMG_RETURN_IF_ERROR(DropAll());
      return outcome_;
    }
    for (size_t i = 0; i < directory_.entries.size(); ++i) {
      IMG_RETURN_IF_ERROR(Consider(i));
    }
    if (keep_.empty()) {
      IMG_RETURN_IF_ERROR(FreeClusters(directory_.offset, directory_.size));
      IMG_RETURN_IF_ERROR(DropAll());
      return outcome_;
    }
    IMG_RETURN_IF_ERROR(WriteDirectory());
    return outcome_;
  }

 private:
  bool Should(Problem problem) const {
    return context_.report.findings.Has(problem) && Allowed(problem, context_.options);
  }

  // What QEMU refuses to open, whatever else holds.
  bool Refused(const Bitmap& b) const {
    uint64_t limit = AlignUp(image_.file_size, image_.geometry.cluster_size);
    bool table_lost = b.table_offset == 0 ||
                      !IsAligned(b.table_offset, image_.geometry.cluster_size) ||
                      !RangeFits(b.table_offset, uint64_t{b.table_size} * 8, limit);
    bool too_large = b.table_size == 0 || b.table_size > kMaxBitmapTableEntries ||
                     uint64_t{b.table_size} * image_.geometry.cluster_size > kMaxBitmapBytes;
    return (b.type != 1 && Should(Problem::kQcow2BitmapType)) ||
           ((b.granularity_bits < kMinGranularityBits || b.granularity_bits > kMaxGranularityBits) &&
            Should(Problem::kQcow2BitmapGranularity)) ||
           ((b.name.empty() || b.name.size() > kMaxBitmapName) &&
            Should(Problem::kQcow2BitmapName)) ||
           ((b.extra_data_size != 0 || (b.flags & kBitmapExtraCompatible) != 0) &&
            Should(Problem::kQcow2BitmapExtra)) ||
           (table_lost && Should(Problem::kQcow2BitmapTableOffset)) ||
           (too_large && Should(Problem::kQcow2BitmapTableSize));
  }

  Status Consider(size_t i) {
    Bitmap b = directory_.entries[i];
    if (Refused(b)) {
      outcome_.particulars.push_back("a bitmap that QEMU refuses to load was dropped");
      ++outcome_.changes;
      return FreeBitmap(b);
    }
    if ((b.flags & ~kBitmapFlagsKnown) != 0 && Should(Problem::kQcow2BitmapFlags)) {
      b.flags = (b.flags & kBitmapFlagsKnown) | kBitmapInUse;
    }
    auto needed = BitmapTableEntries(image_.header.size, b.granularity_bits,
                                     image_.geometry.cluster_size);
    if (needed != b.table_size && Should(Problem::kQcow2BitmapTableSize)) b.flags |= kBitmapInUse;
    if (!image_.header.Autoclear(kAutoclearBitmaps) && Should(Problem::kQcow2BitmapAutoUnset)) {
      b.flags |= kBitmapInUse;
    }
    while (Should(Problem::kQcow2BitmapNameDuplicate) && std::ranges::any_of(keep_, [&](auto& k) {
      return k.name == b.name;
    })) {
      b.name = b.name.substr(0, kMaxBitmapName - 2) + "-2";
    }
    IMG_RETURN_IF_ERROR(MendTable(i, &b));
    keep_.push_back(std::move(b));
    return Ok();
  }

  // Entries that cannot be right become "all dirty", and the bitmap is no longer trusted.
  Status MendTable(size_t i, Bitmap* b) {
    std::vector<uint64_t> table = LoadBitmapTable(image_, directory_.entries[i]);
    for (size_t entry = 0; entry < table.size(); ++entry) {
      uint64_t offset = table[entry] & kOffsetMask;
      bool reserved = (table[entry] & kBitmapEntryReserved) != 0 ||
                      (offset != 0 && (table[entry] & kBitmapAllOnes) != 0);
      bool lost = offset != 0 && (!IsAligned(offset, image_.geometry.cluster_size) ||
                                  offset >= image_.file_size ||
                                  state_.claims().IsConflict(offset >> image_.geometry.cluster_bits));
      bool mend = (reserved && Should(Problem::kQcow2BitmapTentryReserved)) ||
                  (lost && Should(Problem::kQcow2BitmapTentryOffset));
      if (!mend) continue;
      IMG_RETURN_IF_ERROR(editor_.Write64(b->table_offset + 8 * entry, kBitmapAllOnes));
      b->flags |= kBitmapInUse;
      ++outcome_.changes;
      if (!lost && offset != 0) IMG_RETURN_IF_ERROR(Release(offset));
    }
    return Should(Problem::kQcow2BitmapTailBits) ? MendTail(*b, table) : Ok();
  }

  Status MendTail(const Bitmap& b, const std::vector<uint64_t>& table) {
    auto needed = BitmapTableEntries(image_.header.size, b.granularity_bits,
                                     image_.geometry.cluster_size);
    uint64_t offset = table.empty() ? 0 : table.back() & kOffsetMask;
    if (!needed || *needed != table.size() || offset == 0 || offset >= image_.file_size) {
      return Ok();
    }
    ByteVector data(image_.geometry.cluster_size), before;
    IMG_RETURN_IF_ERROR(editor_.Read(offset, data));
    before = data;
    uint64_t bits = DivRoundUp(image_.header.size, uint64_t{1} << b.granularity_bits) -
                    (table.size() - 1) * data.size() * 8;
    uint64_t byte = bits / 8;
    if (bits % 8 != 0) {
      data[byte] = static_cast<uint8_t>(data[byte] & ((1u << (bits % 8)) - 1));
      ++byte;
    }
    std::fill(data.begin() + static_cast<ptrdiff_t>(byte), data.end(), uint8_t{0});
    if (data == before) return Ok();
    ++outcome_.changes;
    return editor_.Write(offset, data);
  }

  // One reference fewer on the cluster at `offset`.
  Status Release(uint64_t offset) {
    uint64_t cluster = offset >> image_.geometry.cluster_bits;
    if (!state_.counts_compared || state_.claims().IsConflict(cluster)) return Ok();
    return StoredCount(image_, cluster) == 1 ? editor_.SetCount(cluster, 0) : Ok();
  }
  Status FreeClusters(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += image_.geometry.cluster_size) {
      IMG_RETURN_IF_ERROR(Release(offset + at));
    }
    return Ok();
  }
  Status FreeBitmap(const Bitmap& b) {
    std::vector<uint64_t> table = LoadBitmapTable(image_, b);
    for (uint64_t entry : table) {
      uint64_t offset = entry & kOffsetMask;
      if (offset != 0 && IsAligned(offset, image_.geometry.cluster_size) &&
          offset < image_.file_size) {
        IMG_RETURN_IF_ERROR(Release(offset));
      }
    }
    return table.empty() ? Ok() : FreeClusters(b.table_offset, table.size() * 8);
  }

  Status DropAll() {
    ByteVector cluster = image_.first_cluster;
    Header header = image_.header;
    header.autoclear_features &= ~kAutoclearBitmaps;
    EncodeHeader(header, cluster);
    RewriteExtensions(image_.extensions, cluster,
                      [](const Extension& e) { return e.type != kExtBitmaps; });
    outcome_.particulars.push_back("the list of persistent bitmaps was dropped: the next backup has to "
                             "be a full one");
    ++outcome_.changes;
    return editor_.Write(0, cluster);
  }

  Status WriteDirectory() {
    ByteVector bytes;
    for (const Bitmap& b : keep_) {
      ByteVector entry = EncodeBitmapEntry(b);
      bytes.insert(bytes.end(), entry.begin(), entry.end());
    }
    BitmapsExtension e = *image_.bitmaps_extension;
    uint64_t room = AlignUp(directory_.size, image_.geometry.cluster_size);
    if (bytes.size() > room) {
      uint64_t clusters = image_.geometry.ClustersOf(bytes.size());
      IMG_RETURN_IF_ERROR(FreeClusters(directory_.offset, directory_.size));
      IMG_ASSIGN_OR_RETURN(e.directory_offset, editor_.Allocate(clusters));
    }
    e.nb_bitmaps = static_cast<uint32_t>(keep_.size());
    e.directory_size = bytes.size();
    e.reserved = 0;
    ByteVector old(bytes.size());
    IMG_RETURN_IF_ERROR(editor_.Read(e.directory_offset, old));
    outcome_.changes += old != bytes;
    IMG_RETURN_IF_ERROR(editor_.Write(e.directory_offset, bytes));
    const Extension& record = *image_.extensions.Find(kExtBitmaps);
    ByteVector encoded = EncodeBitmapsExtension(e);
    outcome_.changes += !std::ranges::equal(encoded, record.data);
    IMG_RETURN_IF_ERROR(editor_.Write(record.offset + 8, encoded));
    Header header = image_.header;
    header.autoclear_features |= kAutoclearBitmaps;
    if (header.autoclear_features != image_.header.autoclear_features) {
      ++outcome_.changes;
      IMG_RETURN_IF_ERROR(editor_.Write64(88, header.autoclear_features));
    }
    return Ok();
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  Editor editor_;
  const BitmapDirectory& directory_;
  std::vector<Bitmap> keep_;
  PassOutcome outcome_;
};

}  // namespace

const Pass kBitmapPass{"bitmaps", 60, "mend or drop persistent bitmaps that cannot be trusted",
                       [](const CheckReport& report, const RepairOptions& options) {
                         return StateOf(report).walked && WantedAny(report, options, kProblems);
                       },
                       [](const PassContext& context) { return BitmapRepair(context).Run(); }};

}  // namespace imgfsck::qcow2
