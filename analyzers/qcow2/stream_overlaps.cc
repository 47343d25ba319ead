// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/stream_overlaps.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "analyzers/qcow2/conflicts.h"
#include "analyzers/qcow2/entry_rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

struct Stream {
  const Claim* claim;
  CompressedSpan span;
  uint64_t guest;   // number of the guest cluster
  uint64_t length;  // bytes for certain
  uint64_t end() const { return span.offset + length; }
};

class OverlapJudge {
 public:
  OverlapJudge(const Image& image, const ClaimList& list, const StreamLength& length_of,
               Findings* findings, std::vector<StreamRef>* overlaps)
      : image_(image),
        list_(list),
        length_of_(length_of),
        findings_(findings),
        overlaps_(overlaps) {}

  // The claims on one cluster.
  void Judge(std::span<const Claim> claims) {
    std::vector<Stream> streams;
    for (const Claim& c : claims) {
      if (c.kind != Claim::Kind::kSpan) continue;
      const CompressedSpan span = DecodeCompressed(image_.geometry, c.descriptor);
      streams.push_back(
          {&c, span, c.table.column * image_.geometry.l2_entries + c.index, length_of_(span)});
    }
    std::stable_sort(streams.begin(), streams.end(), [](const Stream& a, const Stream& b) {
      return std::tie(a.span.offset, a.guest) < std::tie(b.span.offset, b.guest);
    });
    // Of the streams so far, the one that reaches farthest, and of another guest cluster the one
    // that does.
    const Stream *far = nullptr, *other = nullptr;
    for (const Stream& later : streams) {
      const Stream* hit = far != nullptr && far->guest == later.guest ? other : far;
      const bool begins_here =
          later.span.offset >> image_.geometry.cluster_bits == claims.front().cluster;
      if (begins_here && hit != nullptr && hit->end() > later.span.offset) Report(later, *hit);
      if (far == nullptr || later.end() > far->end()) {
        if (far != nullptr && far->guest != later.guest) other = far;
        far = &later;
      } else if (far->guest != later.guest && (other == nullptr || later.end() > other->end())) {
        other = &later;
      }
    }
  }

 private:
  void Report(const Stream& own, const Stream& other) {
    const bool same_layer = list_.ShareLayer(*own.claim, *other.claim);
    Finding f =
        EntryFinding(image_, own.claim->table, own.claim->index,
                     same_layer ? Problem::kQcow2ComprOverlap : Problem::kQcow2CrossLayerAlias,
                     fmt::format("stream at {}", Hex(own.span.offset)));
    const TableRef& table = other.claim->table;
    f.also.push_back(
        {image_.LayerName(table.layer),
         MakeGuestRange(other.guest << image_.geometry.cluster_bits, image_.geometry.cluster_size),
         image_.TableName(table.layer, table.column)});
    f.confidence = 0.5;
    findings_->Add(std::move(f));
    if (same_layer && overlaps_->size() < StreamPlaces::kMost) {
      overlaps_->push_back({own.claim->table, own.claim->index, own.claim->descriptor});
    }
  }

  const Image& image_;
  const ClaimList& list_;
  const StreamLength& length_of_;
  Findings* findings_;
  std::vector<StreamRef>* overlaps_;
};

}  // namespace

Status JudgeStreamOverlaps(const Image& image, const Columns& columns,
                           const std::vector<uint64_t>& starts, const StreamLength& length_of,
                           Findings* findings, std::vector<StreamRef>* overlaps) {
  if (starts.empty()) return Ok();
  std::unordered_set<uint64_t> clusters;
  for (uint64_t start : starts) clusters.insert(start >> image.geometry.cluster_bits);
  ClaimList list;
  IMG_RETURN_IF_ERROR(CollectClaims(
      image, columns, [&](uint64_t c) { return clusters.contains(c); }, &list));
  OverlapJudge judge(image, list, length_of, findings, overlaps);
  std::span<const Claim> all = list.claims;
  for (size_t begin = 0, end; begin < all.size(); begin = end) {
    for (end = begin; end < all.size() && all[end].cluster == all[begin].cluster; ++end) {
    }
    judge.Judge(all.subspan(begin, end - begin));
  }
  if (list.truncated) {
    Finding f;
    f.problem = Problem::kImageTooManyOverlaps;
    f.structure = "l2";
    findings->Add(std::move(f));
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
