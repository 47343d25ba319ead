// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/trial.h"

#include <algorithm>
#include <bit>

#include "analyzers/qcow2/columns.h"
#include "analyzers/qcow2/l2_walk.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {
namespace {

void CountUse(const ClaimMap& claims, Trial* trial) {
  uint64_t words = DivRoundUp(claims.clusters(), 64);
  for (uint64_t w = 0; w < words; ++w) {
    if (!claims.ChunkTouched(w * 64 >> ClaimMap::kChunkBits)) continue;
    trial->used += static_cast<uint64_t>(std::popcount(claims.UsedWord(w)));
    trial->contradicted += static_cast<uint64_t>(std::popcount(claims.ConflictWord(w)));
  }
}

Status CountReferences(const Image& image, const ClaimMap& claims, const CheckOptions& options,
                       Trial* trial) {
  CompareResult result;
  return CompareRefcounts(
      image, claims, options.threads, options.progress,
      [&](const CountRun& run) {
        if (run.computed != 0) {
          trial->contradicted += run.length;
        } else {
          trial->leaked += run.length;
        }
        if (run.stored > run.computed && !run.past_eof && trial->leaks.size() < kMaxTrialLeaks) {
          trial->leaks.push_back(run);
        }
      },
      &result);
}

}  // namespace

Header HeaderFor(const Layout& layout) {
  Geometry g = layout.geometry();
  Header h;
  h.magic = kMagic;
  h.version = 3;
  h.cluster_bits = layout.cluster_bits;
  h.size = std::min(SaturatingMul(layout.l1_entries, g.l2_span), uint64_t{1} << 62);
  h.l1_size = static_cast<uint32_t>(layout.l1_entries);
  h.l1_table_offset = layout.l1_offset;
  h.refcount_table_offset = layout.rt_offset;
  h.refcount_table_clusters = static_cast<uint32_t>(layout.rt_clusters);
  h.refcount_order = layout.refcount_order;
  h.header_length = kHeaderLengthCurrent;
  if (layout.extended_l2) h.incompatible_features |= kIncompatExtendedL2;
  if (layout.data_file) h.incompatible_features |= kIncompatDataFile;
  return h;
}

ByteVector EncodeFirstCluster(const Header& header,
                              const std::vector<ExtensionRecord>& extensions) {
  uint64_t at = header.ExtensionsBegin();
  ByteVector bytes(std::max(at, kHeaderLengthCurrent));
  EncodeHeader(header, bytes);
  bytes.resize(at);
  for (const ExtensionRecord& record : extensions) {
    bytes.resize(at + 8 + AlignUp(record.data.size(), 8));
    PutBe(bytes, at, record.type);
    PutBe(bytes, at + 4, static_cast<uint32_t>(record.data.size()));
    std::ranges::copy(record.data, bytes.begin() + static_cast<ptrdiff_t>(at) + 8);
    at = bytes.size();
  }
  bytes.resize(at + 8);  // END
  return bytes;
}

Result<Trial> TryPrefix(const ByteSource& source, const Layout& layout, ByteVector prefix,
                        const CheckOptions& options) {
  Trial trial;
  trial.layout = layout;
  prefix.resize(std::min<uint64_t>(prefix.size(), source.Size()));
  trial.view = std::make_shared<PrefixSource>(source, std::move(prefix));
  IMG_ASSIGN_OR_RETURN(trial.image, ParseImage(*trial.view));
  const Image& image = *trial.image;
  if (!image.walkable) return trial;
  WalkResult walk;
  IMG_ASSIGN_OR_RETURN(walk.claims, ClaimMap::Make(image.ClusterCount()));
  unsigned bits = image.geometry.cluster_bits;
  ForEachMeta(image, [&](const MetaRegion& region) {
    uint64_t first = region.host.offset.value >> bits;
    walk.claims.ClaimMeta(first, ((region.host.end() - 1) >> bits) - first + 1);
  });
  Columns columns(image);
  Findings findings(1);
  IMG_RETURN_IF_ERROR(WalkTables(image, columns, options, &walk, &findings));
  trial.invalid = findings.Units(Severity::kCorruption);
  trial.l2_tables = walk.tables;
  CountUse(walk.claims, &trial);
  for (uint64_t at = image.active.offset; at < image.active.offset + image.active.bytes();
       at += image.geometry.cluster_size) {
    trial.l1_contested |= at < image.file_size && walk.claims.IsConflict(at >> bits);
  }
  if (!image.refcount_table.empty() && image.refcounts_usable) {
    IMG_RETURN_IF_ERROR(CountReferences(image, walk.claims, options, &trial));
  }
  return trial;
}

}  // namespace imgfsck::qcow2
