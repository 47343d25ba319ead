// SPDX-License-Identifier: Apache-2.0
// Clusters that are counted but used by nobody. Given back is only what holds nothing worth
// keeping; the rest may be the only copy of lost data and keeps its count, unless the user says
// `--orphans free`. Nothing is ever punched out of the file.
#include <fmt/format.h>

#include "repair/qcow2/luks_search.h"
#include "repair/qcow2/passes.h"
#include "repair/qcow2/superseded.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kCopySearchLimit = 16 * kGiB;  // live data read while looking for copies
constexpr uint64_t kMaxCopiesSought = 1 << 16;    // orphans

class Leaks : PassBody {
 public:
  explicit Leaks(const PassContext& context) : PassBody(context), judge_(context.image, state_) {}

  Result<PassOutcome> Run() {
    if (LuksLost(*state_.image) && context_.options.orphans != OrphanPolicy::kFree) {
      outcome_.notes.push_back(
          "leaked clusters are all kept: the LUKS header, which is missing, may be among them");
      return outcome_;
    }
    bool free_all = context_.options.orphans == OrphanPolicy::kFree;
    if (!free_all) IMG_RETURN_IF_ERROR(FindCopies());
    for (const CountRun& run : state_.leaks) {
      if (run.computed != 0) continue;
      for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
        OrphanJudge::Content content = OrphanJudge::Content::kEmpty;
        if (!free_all) {
          IMG_ASSIGN_OR_RETURN(content, judge_.Judge(c));
        }
        bool keep = content == OrphanJudge::Content::kValuable ||
                    content == OrphanJudge::Content::kUnreadable;
        if (keep) {
          if (!KeepsInSnapshot(context_)) ++outcome_.orphans.kept;
          continue;
        }
        IMG_RETURN_IF_ERROR(editor_.SetCount(c, 0));
        ++outcome_.orphans.freed;
        ++outcome_.changes;
      }
    }
    // Otherwise the lost-found pass says what becomes of them.
    bool last_word = context_.options.mode == RepairMode::kLeaks ||
                     context_.options.orphans == OrphanPolicy::kKeep ||
                     state_.image->has_data_file();
    if (outcome_.orphans.kept > 0 && last_word) {
      outcome_.notes.push_back(
          fmt::format("{} leaked clusters hold data that nothing else in the image holds: kept "
                      "(--orphans free gives them up)",
                      outcome_.orphans.kept));
    }
    return outcome_;
  }

 private:
  Status FindCopies() {
    std::vector<uint64_t> orphans;
    for (const CountRun& run : state_.leaks) {
      if (run.computed != 0) continue;
      for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
        IMG_ASSIGN_OR_RETURN(auto content, judge_.Judge(c));
        if (content == OrphanJudge::Content::kValuable && orphans.size() < kMaxCopiesSought) {
          orphans.push_back(c);
        }
      }
    }
    if (orphans.empty()) return Ok();
    return judge_.FindCopies(orphans, kCopySearchLimit);
  }

  OrphanJudge judge_;
};

}  // namespace

const Pass kLeakPass{"leaks", 76,
                     "give back clusters that nothing uses and that hold nothing worth keeping",
                     [](const CheckReport& report, const RepairOptions& options) {
                       const CheckState& state = StateOf(report);
                       return state.counts_compared && !state.leaks.empty() &&
                              Allowed(Problem::kQcow2RefcountLeak, options);
                     },
                     [](const PassContext& context) { return Leaks(context).Run(); }};

}  // namespace imgfsck::qcow2
