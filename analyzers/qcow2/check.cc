// SPDX-License-Identifier: Apache-2.0
// The check of a qcow2 image: parse, judge the header and what hangs on it, walk all tables, find
// who collides with whom, compare the stored counts. Damage never ends it; a header that cannot be
// understood ends it early, with a finding.
#include "analyzers/qcow2/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/conflicts.h"
#include "analyzers/qcow2/examine_header.h"
#include "analyzers/qcow2/rules.h"
#include "analyzers/qcow2/state.h"
#include "analyzers/qcow2/stream_overlaps.h"
#include "base/interrupt.h"
#include "formats/qcow2/metadata.h"
#include "formats/qcow2/rows.h"

namespace imgfsck::qcow2 {
namespace {

class Check {
 public:
  Check(const ByteSource& source, const CheckOptions& options, CheckReport* report)
      : source_(source),
        options_(options),
        report_(report),
        out_(&report->findings),
        state_(std::make_shared<CheckState>()) {}

  Status Run() {
    IMG_ASSIGN_OR_RETURN(HeaderVerdict verdict, ExamineHeader(source_, options_));
    state_->image = verdict.image;
    state_->recovery = verdict.recovery;
    state_->reconstructed = verdict.reconstructed;
    Describe();
    JudgeHeader(*state_->image, out_);
    if (state_->image->walkable) {
      JudgeExtensions(*state_->image, out_);
      JudgeBacking(*state_->image, options_, out_);
      JudgeL1(*state_->image, out_);
      JudgeRefcountTable(*state_->image, out_);
      JudgeSnapshots(*state_->image, out_);
      JudgeBitmaps(*state_->image, out_);
      JudgeLuks(*state_->image, out_);
      IMG_RETURN_IF_ERROR(Walk());
      JudgeDataFile(*state_->image, options_, state_->walk.data_file_end, out_);
      IMG_RETURN_IF_ERROR(Conflicts());
      IMG_RETURN_IF_ERROR(Overlaps());
      IMG_RETURN_IF_ERROR(Counts());
      JudgeHidden(*state_, out_);
      if (options_.deep) IMG_RETURN_IF_ERROR(JudgeDeep(state_.get(), options_, out_));
      NameSharingLayers(*state_, out_);
    }
    if (state_->image->walkable) ProbeSideTables(*state_->image, &state_->image->unreadable);
    Unreadable(state_->image->unreadable, "metadata");
    // Tables that would fit another header too say nothing against one that harms nobody: a writer
    // that was stopped leaves such.
    if (!state_->reconstructed && !AnyCorruption()) {
      verdict.recovery.reset();
      state_->recovery.reset();
    }
    AddToHeaderFindings(verdict, out_);
    Finish();
    return Ok();
  }

 private:
  const Image& image() const { return *state_->image; }

  // That no stopped writer may leave: flags may lag behind counts, counts of a dirty image behind
  // everything.
  bool AnyCorruption() const {
    const bool dirty = image().header.Incompatible(kIncompatDirty);
    return std::ranges::any_of(out_->kept(), [dirty](const Finding& f) {
      const std::string_view code = f.info().code;
      return f.severity_or_default() == Severity::kCorruption &&
             f.problem != Problem::kQcow2L1Copied && f.problem != Problem::kQcow2L2Copied &&
             !(dirty && (code.starts_with("qcow2-r") || f.structure.starts_with("refcount")));
    });
  }

  void Describe() {
    report_->version = fmt::format("{}", image().header.version);
    report_->virtual_size = image().header.size;
    report_->file_size = image().file_size;
    report_->cluster_size = image().walkable ? image().geometry.cluster_size : 0;
    if (image().walkable) {
      report_->counts.total_clusters = image().geometry.ClustersOf(image().header.size);
    }
  }

  void Unreadable(const std::vector<HostRange>& bad, std::string_view structure) {
    for (const HostRange& range : bad) {
      Finding f;
      f.problem = Problem::kImageUnreadable;
      f.structure = structure;
      f.host = range;
      out_->Add(std::move(f));
      ++report_->counts.check_errors;
    }
  }

  Status Walk() {
    WalkResult& walk = state_->walk;
    IMG_ASSIGN_OR_RETURN(walk.claims, ClaimMap::Make(image().ClusterCount()));
    unsigned bits = image().geometry.cluster_bits;
    ForEachMeta(image(), [&](const MetaRegion& region) {
      uint64_t first = region.host.offset.value >> bits;
      walk.claims.ClaimMeta(first, ((region.host.end() - 1) >> bits) - first + 1);
    });
    state_->columns.emplace(image());
    if (state_->columns->truncated()) {
      Finding f;
      f.problem = Problem::kImageTooManyOverlaps;
      f.structure = "l1";
      out_->Add(std::move(f));
    }
    IMG_RETURN_IF_ERROR(WalkTables(image(), *state_->columns, options_, &walk, out_));
    report_->counts.allocated_clusters = walk.counts.allocated_clusters;
    report_->counts.fragmented_clusters = walk.counts.fragmented_clusters;
    report_->counts.compressed_clusters = walk.counts.compressed_clusters;
    report_->counts.check_errors += walk.unreadable.size();
    state_->walked = true;
    return Ok();
  }

  Status Conflicts() {
    const ClaimMap& claims = state_->claims();
    if (!claims.AnyConflict()) return Ok();
    ClaimList list;
    IMG_RETURN_IF_ERROR(CollectClaims(
        image(), *state_->columns,
        [&](uint64_t c) { return c < claims.clusters() && claims.IsConflict(c); }, &list));
    JudgeConflicts(image(), claims, list, out_);
    if (list.truncated) {
      Finding f;
      f.problem = Problem::kImageTooManyOverlaps;
      f.structure = "l2";
      out_->Add(std::move(f));
    }
    return Ok();
  }

  // A deep check knows how long each stream really is.
  Status Overlaps() {
    if (options_.deep) return Ok();
    const uint64_t shortest = ShortestStream(image().geometry, image().header.compression_type);
    return JudgeStreamOverlaps(
        image(), *state_->columns, state_->walk.streams.Overlapping(),
        [shortest](const CompressedSpan&) { return shortest; }, out_, &state_->overlaps);
  }

  void AddRun(const CountRun& run) {
    const Geometry& g = image().geometry;
    Finding f;
    uint64_t max = g.MaxRefcount();
    if (run.past_eof) {
      f.problem = Problem::kQcow2RefcountPastEof;
    } else if (run.computed > max) {
      f.problem = Problem::kQcow2RefcountOverflow;
    } else if (run.stored > run.computed) {
      f.problem = Problem::kQcow2RefcountLeak;
      if (state_->leaks.size() < kMaxLeakRuns) {
        state_->leaks.push_back(run);
      } else {
        state_->leaks_complete = false;
      }
    } else {
      f.problem = run.stored == 0 ? Problem::kQcow2RefcountZeroUsed : Problem::kQcow2RefcountLow;
    }
    if (!out_->WouldKeep(f.problem)) {
      out_->AddBare(f.problem, run.length);
      return;
    }
    f.structure = fmt::format("refcount-block[{}]", run.cluster / g.block_entries);
    f.host = MakeHostRange(run.cluster << g.cluster_bits, run.length << g.cluster_bits);
    f.count = run.length;
    f.detail = fmt::format("stored {}, referenced {}", run.stored, run.computed);
    out_->Add(std::move(f));
  }

  Status Counts() {
    bool table_lost = image().refcount_table.empty();
    if (!image().refcounts_usable || table_lost) return Ok();
    CompareResult result;
    IMG_RETURN_IF_ERROR(CompareRefcounts(
        image(), state_->claims(), options_.threads, options_.progress,
        [&](const CountRun& run) { AddRun(run); }, &result));
    Unreadable(result.unreadable, "refcount-block");
    state_->counts_compared = true;
    state_->highest_cluster = result.highest_cluster;
    report_->counts.image_end_offset = result.highest_cluster << image().geometry.cluster_bits;
    FileTail();
    return Ok();
  }

  // Bytes behind everything that is used or counted.
  void FileTail() {
    uint64_t end = report_->counts.image_end_offset;
    if (end >= image().file_size) return;
    Finding f;
    f.problem = Problem::kQcow2FileTail;
    f.structure = "file";
    f.host = MakeHostRange(end, image().file_size - end);
    out_->Add(std::move(f));
  }

  void Finish() {
    report_->rows = MakeRows(state_->image, options_.path);
    if (state_->counts_compared) {
      auto state = state_;
      report_->refcounts = [state](const RowQuery& query) {
        auto claims = std::shared_ptr<const ClaimMap>(state, &state->walk.claims);
        return RefcountRows(state->image, claims, query);
      };
    }
    report_->detail = state_;
  }

  const ByteSource& source_;
  const CheckOptions& options_;
  CheckReport* report_;
  Findings* out_;
  std::shared_ptr<CheckState> state_;
};

}  // namespace

Status RunCheck(const ByteSource& source, const CheckOptions& options, CheckReport* report) {
  return Check(source, options, report).Run();
}

}  // namespace imgfsck::qcow2

namespace imgfsck {
const Checker kQcow2Checker{"qcow2", qcow2::RunCheck};
}  // namespace imgfsck
