// SPDX-License-Identifier: Apache-2.0
// Bytes that nothing refers to: counted where they are not zero, and searched for mapping tables
// that lost the entry pointing to them. No writer ever frees a table, so such a table is damage.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow1/rules.h"
#include "formats/common/stored.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow1 {
namespace {

class Waste {
 public:
  Waste(CheckState* state, Findings* out) : state_(state), image_(*state->image), out_(out) {}

  Status Run() {
    uint64_t at = 0;
    for (const Span& span : state_->space.covered()) {
      IMG_RETURN_IF_ERROR(Gap(at, span.begin));
      at = span.end;
    }
    IMG_RETURN_IF_ERROR(Gap(at, image_.file_size));
    for (const OrphanTable& orphan : state_->orphans) Report(orphan);
    return Ok();
  }

 private:
  Status Gap(uint64_t begin, uint64_t end) {
    if (begin >= end) return Ok();
    uint64_t first = end;  // the first byte that is not zero
    uint64_t size = image_.geometry.cluster_size, known_until = 0;
    bool after_zeros = false;
    uint64_t stored_until = begin;  // what lies before a piece, from here on, is a hole: zeros
    auto visit = [&](uint64_t offset, Bytes piece) -> Result<bool> {
      if (uint64_t at = AlignUp(stored_until, size); at < offset) {
        if (!after_zeros && at >= known_until && LooksOrphaned(at, end)) {
          known_until = at + image_.geometry.l2_bytes;
        }
        after_zeros = true;
      }
      stored_until = offset + piece.size();
      if (first == end && !AllZero(piece)) {
        auto byte = std::find_if(piece.begin(), piece.end(), [](uint8_t b) { return b != 0; });
        first = offset + static_cast<uint64_t>(byte - piece.begin());
      }
      for (uint64_t at = AlignUp(offset, size); at < offset + piece.size(); at += size) {
        Bytes cluster = piece.subspan(at - offset);
        cluster = cluster.first(std::min<size_t>(cluster.size(), size));
        bool zero = AllZero(cluster);
        // A table may begin with unused entries; then it follows something that is not zero.
        bool candidate = zero ? !after_zeros : CanBegin(cluster);
        after_zeros = zero;
        if (at < known_until || !candidate) continue;
        if (LooksOrphaned(at, end)) known_until = at + image_.geometry.l2_bytes;
      }
      return true;
    };
    IMG_RETURN_IF_ERROR(ForEachStoredPiece(*image_.source, begin, end, &state_->unreadable, visit));
    if (first == end) return Ok();
    Finding f = MakeFinding(Problem::kQcowWaste, "slack");
    f.host = MakeHostRange(first, end - first);
    f.count = image_.geometry.ClustersOf(end - first);
    out_->Add(std::move(f));
    return Ok();
  }

  // A cheap look at the first entry in use: most bytes are no entry.
  bool CanBegin(Bytes cluster) const {
    for (size_t at = 0; at + 8 <= cluster.size(); at += 8) {
      uint64_t raw = BeAt<uint64_t>(cluster, at);
      if (raw != 0) return Strict(Entry{raw});
    }
    return false;
  }

  bool Strict(Entry entry) const {
    EntryCheck check = CheckEntry(image_, entry);
    return !check.damaged() && !check.unaligned && entry.offset(image_.geometry) >= kHeaderLength;
  }

  bool LooksOrphaned(uint64_t offset, uint64_t gap_end) {
    if (gap_end - offset < image_.geometry.l2_bytes || state_->orphans.size() >= kMaxOrphans) {
      return false;
    }
    std::vector<HostRange> bad;
    ReadL2(image_, offset, &entries_, &bad);
    if (!bad.empty()) return false;
    RangeUnion targets;
    uint64_t used = 0, unclaimed = 0;
    for (uint64_t raw : entries_) {
      if (raw == 0) continue;
      Entry entry{raw};
      if (!Strict(entry)) return false;
      uint64_t begin = entry.offset(image_.geometry);
      uint64_t end = begin + entry.length(image_.geometry);
      targets.Add(begin, end);
      ++used;
      if (!state_->space.Covers(begin, std::min(end, image_.file_size))) ++unclaimed;
    }
    targets.Add(offset, offset + image_.geometry.l2_bytes);
    targets.Finish();
    // No table names a cluster twice, or itself; one that was replaced would name live clusters.
    if (used == 0 || unclaimed * 10 < used * 9 || !targets.repeated().empty()) return false;
    state_->orphans.push_back({offset, used});
    return true;
  }

  void Report(const OrphanTable& orphan) {
    Finding f = MakeFinding(Problem::kQcowL2Orphan, "orphan-l2");
    f.host = MakeHostRange(orphan.offset, image_.geometry.l2_bytes);
    f.detail = fmt::format("it maps {} clusters", orphan.clusters);
    f.evidence = "its entries are well formed and point to clusters that nothing else uses";
    f.count = orphan.clusters;
    out_->Add(std::move(f));
  }

  CheckState* state_;
  const Image& image_;
  Findings* out_;
  std::vector<uint64_t> entries_;
};

}  // namespace

Status JudgeWaste(CheckState* state, Findings* findings) { return Waste(state, findings).Run(); }

}  // namespace imgfsck::qcow1
