// SPDX-License-Identifier: Apache-2.0
// What lies behind the end of things and harms nobody: entries of an L1 table that is longer than
// the disk needs, mappings past the end of the disk, bytes behind the file's last cluster. Goes
// only by --fix.
#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kPastEndProblems = {
    Problem::kQcow2L1Oversize, Problem::kQcow2L2PastSize, Problem::kQcow2Extl2PastSize,
    Problem::kQcow2FileTail};

class PastEnd : PassBody {
 public:
  explicit PastEnd(const PassContext& context) : PassBody(context) {}

  Result<PassOutcome> Run() {
    if (!state_.counts_compared) {
      outcome_.notes.push_back(
          "what lies past the end is left until the stored counts can be read");
      return outcome_;
    }
    if (Should(Problem::kQcow2L2PastSize) || Should(Problem::kQcow2Extl2PastSize)) {
      IMG_RETURN_IF_ERROR(Unmap());
    }
    if (Should(Problem::kQcow2L1Oversize)) IMG_RETURN_IF_ERROR(TrimL1());
    if (Should(Problem::kQcow2FileTail)) IMG_RETURN_IF_ERROR(CutFile());
    return outcome_;
  }

 private:
  // The end of the disk, of the layers that use this table the largest.
  uint64_t DiskEnd(const TableRef& table) const {
    uint64_t end = 0;
    for (uint32_t layer : state_.columns->LayersOf(table.column, table.offset)) {
      end = std::max(end, image_.LayerSize(layer));
      // From the first whole table behind the disk on, VM states are kept.
      if (table.column >= image_.L1Min(layer)) return ~uint64_t{0};
    }
    return end;
  }

  Status Unmap() {
    return ForEachTable(
        context_.image, state_,
        [&](const TableRef& table, MutableBytes bytes, bool* changed) -> Status {
          const uint64_t end = DiskEnd(table);
          for (uint64_t i = 0; i < g_.l2_entries; ++i) {
            const Entry entry = LoadEntry(g_, bytes, i);
            const uint64_t guest = (table.column * g_.l2_entries + i) << g_.cluster_bits;
            if (entry.empty() || guest + g_.cluster_size <= end || end == ~uint64_t{0}) continue;
            Entry mended = entry;
            if (guest >= end && Should(Problem::kQcow2L2PastSize)) {
              mended = {};
              IMG_RETURN_IF_ERROR(GiveBack(entry, table.weight));
            } else if (guest < end && g_.extended_l2 && !entry.compressed() &&
                       Should(Problem::kQcow2Extl2PastSize)) {
              const uint64_t used = DivRoundUp(end - guest, g_.cluster_size / kSubclusters);
              if (used < kSubclusters)
                mended.subclusters &= ~(0xFFFFFFFFull << used & 0xFFFFFFFFull);
            }
            if (mended.descriptor == entry.descriptor && mended.subclusters == entry.subclusters) {
              continue;
            }
            StoreEntry(g_, bytes, i, mended);
            ++outcome_.changes;
            *changed = true;
          }
          return Ok();
        });
  }

  // The references that the entry had on its clusters.
  Status GiveBack(const Entry& entry, uint64_t weight) {
    const EntryClaim claim = ClaimOf(image_, entry);
    if (claim.kind == EntryClaim::Kind::kNone) return Ok();
    for (uint64_t c = claim.first; c <= claim.last; ++c) {
      auto known = left_.try_emplace(c, StoredCount(image_, c)).first;
      known->second -= std::min(known->second, weight);
      IMG_RETURN_IF_ERROR(editor_.SetCount(c, known->second));
    }
    return Ok();
  }

  Status TrimL1() {
    const uint64_t needed = image_.L1Min(0), declared = image_.active.declared;
    if (needed == 0 || declared <= needed || image_.active.entries != declared) return Ok();
    ByteVector tail((declared - needed) * 8);
    IMG_RETURN_IF_ERROR(editor_.Read(image_.active.offset + needed * 8, tail));
    if (!AllZero(tail)) {
      outcome_.notes.push_back("the L1 table is not shortened: its end is in use");
      return Ok();
    }
    IMG_RETURN_IF_ERROR(editor_.Write32(36, static_cast<uint32_t>(needed)));
    const uint64_t first = g_.ClustersOf(image_.active.offset + needed * 8);
    const uint64_t end = g_.ClustersOf(image_.active.offset + declared * 8);
    for (uint64_t c = first; c < end; ++c) {
      if (state_.claims().Count(c) == 1 && StoredCount(image_, c) == 1) {
        IMG_RETURN_IF_ERROR(editor_.SetCount(c, 0));
      }
    }
    ++outcome_.changes;
    return Ok();
  }

  Status CutFile() {
    const uint64_t end = state_.highest_cluster << g_.cluster_bits;
    if (end >= context_.image.Size() || outcome_.changes > 0) return Ok();  // then the next time
    ++outcome_.changes;
    return context_.image.SetSize(end);
  }

  std::map<uint64_t, uint64_t> left_;  // counts of clusters that were given back in part
};

}  // namespace

const Pass kPastEndPass{
    "past-end", 46, "give up what lies past the end of the disk and of the file",
    [](const CheckReport& report, const RepairOptions& options) {
      return StateOf(report).walked && WantedAny(report, options, kPastEndProblems);
    },
    [](const PassContext& context) { return PastEnd(context).Run(); }};

}  // namespace imgfsck::qcow2
