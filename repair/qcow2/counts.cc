// SPDX-License-Identifier: Apache-2.0
// Reference counts that are too low, or too high on clusters that are in use, become what the
// references say. Clusters that nothing refers to are left to the leaks pass.
#include <fmt/format.h>

#include <algorithm>

#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kCountsProblems = {
    Problem::kQcow2RefcountLow, Problem::kQcow2RefcountZeroUsed, Problem::kQcow2RefcountLeak,
    Problem::kQcow2RefcountPastEof};

// Mappings of the guest that are lost or led astray. A count that is one too high may say where one
// of them belongs.
constexpr Problem kAstray[] = {Problem::kQcow2L1Unaligned,      Problem::kQcow2L1Short,
                               Problem::kQcow2L1PastEof,        Problem::kQcow2L1OffsetZero,
                               Problem::kQcow2L1EntryUnaligned, Problem::kQcow2L1EntryPastEof,
                               Problem::kQcow2L1EntryDuplicate, Problem::kQcow2L2Implausible,
                               Problem::kQcow2L2EntryUnaligned, Problem::kQcow2L2EntryPastEof,
                               Problem::kQcow2L2DataCrosslink,  Problem::kQcow2L2DataOnMetadata,
                               Problem::kQcow2L2ZeroFlagV2,     Problem::kQcow2L2EmptyWithLeaks,
                               Problem::kQcow2L2Orphan,         Problem::kQcow2SnapL1Unaligned,
                               Problem::kQcow2SnapL1PastEof,    Problem::kQcow2SnapL2Structure};

// A count may be raised only to say the truth about a cluster used once a layer; clusters in
// conflict are split first.
class Counts : PassBody {
 public:
  explicit Counts(const PassContext& context)
      : PassBody(context), evidence_(HighCountsAreEvidence(context)) {}

  Result<PassOutcome> Run() {
    Status failed = Ok();
    CompareResult result;
    IMG_RETURN_IF_ERROR(CompareRefcounts(
        *state_.image, state_.claims(), context_.options.check.threads, nullptr,
        [&](const CountRun& run) {
          if (failed) failed = Mend(run);
        },
        &result));
    IMG_RETURN_IF_ERROR(std::move(failed));
    // Past the old end of the file, where counts were set to zero.
    for (uint64_t c : moved_to_) IMG_RETURN_IF_ERROR(editor_.SetCount(c, 1));
    if (conflicts_ > 0) {
      outcome_.notes.push_back(
          conflicts_ == 1
              ? std::string("one cluster claimed twice keeps its count: it has to be split first")
              : fmt::format(
                    "{} clusters claimed twice keep their counts: they have to be split first",
                    conflicts_));
    }
    if (kept_ > 0) {
      outcome_.notes.push_back(fmt::format(
          "{} counted more often than used {}: this may tell --repair=all where a lost mapping "
          "belongs",
          kept_ == 1 ? std::string("one cluster") : fmt::format("{} clusters", kept_),
          kept_ == 1 ? "stays so" : "stay so"));
    }
    return outcome_;
  }

 private:
  Status Mend(const CountRun& run) {
    if (run.past_eof) return MendPastEof(run);
    bool raise = run.stored < run.computed;
    if (raise &&
        !May(run.stored == 0 ? Problem::kQcow2RefcountZeroUsed : Problem::kQcow2RefcountLow)) {
      return Ok();
    }
    if (!raise && (run.computed == 0 || !May(Problem::kQcow2RefcountLeak))) return Ok();
    if (!raise && evidence_) {
      kept_ += run.length;
      return Ok();
    }
    if (run.computed > state_.image->geometry.MaxRefcount()) return Ok();  // needs a wider count
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      if (raise && state_.claims().IsConflict(c) && run.stored != 0) {
        ++conflicts_;
        continue;
      }
      IMG_RETURN_IF_ERROR(Set(c, run.computed));
      ++outcome_.changes;
    }
    return Ok();
  }

  // A refcount table may have been led onto guest data. Whoever mapped that may have let go of it
  // since: it is no place to write counts to.
  bool StandsOnData(uint64_t index) const {
    if (context_.first == nullptr) return false;
    const CheckState& first = StateOf(*context_.first);
    const uint64_t block = BlockOffset(*state_.image, index) >> state_.image->geometry.cluster_bits;
    return block != 0 && first.walked && block < first.claims().clusters() &&
           (first.claims().IsData(block) || first.claims().IsCompressed(block)) &&
           !HoldsCounts(*state_.image, state_.claims(), index);
  }

  Status Set(uint64_t cluster, uint64_t count) {
    const uint64_t index = cluster / state_.image->geometry.block_entries;
    if (index >= next_block_) {  // clusters come ascending
      next_block_ = index + 1;
      if (StandsOnData(index)) {
        IMG_ASSIGN_OR_RETURN(const uint64_t moved_to, editor_.MoveBlock(index));
        moved_to_.push_back(moved_to);
      }
    }
    return editor_.SetCount(cluster, count);
  }

  Status MendPastEof(const CountRun& run) {
    if (!May(Problem::kQcow2RefcountPastEof)) return Ok();
    // They may tell which mappings lead to what was cut off. Free, such a cluster would be given to
    // somebody else, into whose data the mapping would lead then.
    if (evidence_) {
      kept_ += run.length;
      return Ok();
    }
    for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
      IMG_RETURN_IF_ERROR(Set(c, 0));
      ++outcome_.changes;
    }
    return Ok();
  }

  const bool evidence_;  // counts that are too high have to stay
  uint64_t conflicts_ = 0, kept_ = 0;
  uint64_t next_block_ = 0;         // blocks below have been looked at
  std::vector<uint64_t> moved_to_;  // clusters of blocks that were moved
};

constexpr Problem kCountsMayAdd[] = {Problem::kQcow2RefcountLeak};  // where a block was

}  // namespace

// --repair=all has had its chance to put mappings back; what is too high then is of no use.
bool HighCountsAreEvidence(const PassContext& context) {
  const RepairOptions& options = context.options;
  return options.mode != RepairMode::kAll && options.orphans != OrphanPolicy::kFree &&
         !options.also_fix.contains(Problem::kQcow2RefcountLeak) &&
         std::any_of(std::begin(kAstray), std::end(kAstray),
                     [&](Problem problem) { return context.report.findings.Has(problem); });
}

const Pass kCountPass{"refcounts",
                      72,
                      "make reference counts agree with the references",
                      [](const CheckReport& report, const RepairOptions& options) {
                        return StateOf(report).counts_compared &&
                               WantedAny(report, options, kCountsProblems);
                      },
                      [](const PassContext& context) { return Counts(context).Run(); },
                      {},
                      kCountsMayAdd};

}  // namespace imgfsck::qcow2
