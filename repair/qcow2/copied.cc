// SPDX-License-Identifier: Apache-2.0
// COPIED flags of the active L1 and L2 tables: set exactly where the references make it one.
#include "analyzers/qcow2/entry_rules.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

class CopiedFlags {
 public:
  explicit CopiedFlags(const PassContext& context)
      : context_(context),
        state_(StateOf(context.report)),
        image_(*state_.image),
        high_counts_stay_(HighCountsAreEvidence(context)) {}

  Result<PassOutcome> Run() {
    IMG_RETURN_IF_ERROR(MendL1());
    IMG_RETURN_IF_ERROR(ForEachTable(context_.image, state_,
                                     [&](const TableRef& table, MutableBytes bytes, bool* changed) {
                                       if (!table.active) return Ok();
                                       for (uint64_t i = 0; i < image_.geometry.l2_entries; ++i) {
                                         Entry entry = LoadEntry(image_.geometry, bytes, i);
                                         EntryClaim claim = ClaimOf(image_, entry);
                                         if (claim.kind != EntryClaim::Kind::kCluster) continue;
                                         const bool wanted = Wanted(claim.first);
                                         if (entry.copied() == wanted) continue;
                                         entry.descriptor ^= kCopied;
                                         StoreEntry(image_.geometry, bytes, i, entry);
                                         ++outcome_.changes;
                                         *changed = true;
                                       }
                                       return Ok();
                                     }));
    return outcome_;
  }

 private:
  // Where a lost mapping may share the cluster, a write must not go there.
  bool Wanted(uint64_t cluster) const {
    return state_.claims().Count(cluster) == 1 &&
           !(high_counts_stay_ && StoredCount(image_, cluster) > 1);
  }

  Status MendL1() {
    const L1Location& l1 = image_.active;
    ByteVector raw(l1.bytes());
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, l1.offset, raw, &bad);
    for (uint64_t i = 0; i < l1.entries; ++i) {
      uint64_t value = LoadBe<uint64_t>(&raw[8 * i]), offset = value & kOffsetMask;
      if (offset == 0 || !IsAligned(offset, image_.geometry.cluster_size) ||
          offset >= image_.file_size) {
        continue;
      }
      const bool wanted = Wanted(offset >> image_.geometry.cluster_bits);
      if (((value & kCopied) != 0) == wanted) continue;
      uint8_t bytes[8];
      StoreBe(bytes, value ^ kCopied);
      IMG_RETURN_IF_ERROR(context_.image.WriteAt(l1.offset + 8 * i, bytes));
      ++outcome_.changes;
    }
    return Ok();
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  const bool high_counts_stay_;
  PassOutcome outcome_;
};

}  // namespace

const Pass kCopiedPass{
    "copied-flags", 80, "set COPIED where a cluster has one reference, clear it elsewhere",
    [](const CheckReport& report, const RepairOptions& options) {
      return StateOf(report).walked &&
             WantedAny(report, options, {Problem::kQcow2L1Copied, Problem::kQcow2L2Copied});
    },
    [](const PassContext& context) { return CopiedFlags(context).Run(); }};

}  // namespace imgfsck::qcow2
