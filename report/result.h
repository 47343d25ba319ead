// SPDX-License-Identifier: Apache-2.0
// What imgfsck found out about one image, as plain data: the tool fills it, the text and JSON
// reports read it. Knows neither checks nor repairs, so that both can change without the reports.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/finding.h"
#include "model/rows.h"

namespace imgfsck {

// The numbers of one run of the check.
struct CheckResult {
  std::string format, version;  // "qcow2", "3"; empty when not recognised
  uint64_t virtual_size = 0, file_size = 0, cluster_size = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0,
           compressed_clusters = 0;
  uint64_t check_errors = 0;
  const Findings* findings = nullptr;  // never null when a result is there; outlives the report
  const ImageRows* rows = nullptr;     // for snapshots' names; may be null
};

// From a CheckReport (analyzers/check.h), which must outlive the result.
template <class CheckReport>
CheckResult ResultOf(const CheckReport& report) {
  CheckResult result;
  if (report.format != nullptr) result.format = report.format->name;
  result.version = report.version;
  result.virtual_size = report.virtual_size;
  result.file_size = report.file_size;
  result.cluster_size = report.cluster_size;
  result.image_end_offset = report.counts.image_end_offset;
  result.total_clusters = report.counts.total_clusters;
  result.allocated_clusters = report.counts.allocated_clusters;
  result.fragmented_clusters = report.counts.fragmented_clusters;
  result.compressed_clusters = report.counts.compressed_clusters;
  result.check_errors = report.counts.check_errors;
  result.findings = &report.findings;
  result.rows = report.rows.get();
  return result;
}

// Guest bytes that are gone: a repair cost them, or the damage did and no repair brings them back.
struct LostRange {
  std::string layer;  // "active" or a snapshot's id
  GuestRange guest;
  Effect effect = Effect::kZero;  // what the guest reads there instead
  bool by_repair = true;
};

// Units of allocation that nothing referred to.
struct OrphanSummary {
  uint64_t kept = 0, relinked = 0, freed = 0;
  std::string where;  // the snapshot or directory in which kept ones can be reached
};

struct RepairSummary {
  std::string mode;            // "leaks", "safe", "all"
  bool dry_run = false;        // --dry-run, --plan: computed and verified, nothing written
  std::string output;          // --output: the repaired image; IMAGE is as it was
  std::string plan_file;       // --plan: where the plan was written
  std::string undo_file;       // empty when there is none
  uint64_t patches = 0;        // 0: there was nothing that this mode repairs
  uint64_t bytes_written = 0;  // for a dry run: would be written
  bool verified = false;       // the repaired bytes were checked again before they were written
  std::vector<LostRange> lost;
  OrphanSummary orphans;
  std::vector<std::string> done;     // what was done, a sentence each, in order
  std::vector<std::string> refused;  // what was not done and why, a sentence each
};

struct ImageResult {
  std::string path;
  std::optional<CheckResult> before;    // the check of the image as it was; absent after an error
  std::optional<CheckResult> after;     // of the repaired bytes (dry run: as they would be)
  std::optional<RepairSummary> repair;  // when one was asked for and not refused as a whole
  std::vector<std::string> notes;  // sentences for the reader: a running VM, a missing backing file
  std::optional<Error> error;      // why there is no (full) answer
  int exit_code = 0;               // see ExitCodeOf()
};

enum class ExitStyle { kFsck, kQemu };

// This image's exit status. fsck style: 0, 1, 4 or 8. qemu style: 0, 1, 2, 3 or 63.
int ExitCodeOf(const ImageResult& result, Severity fail_on, ExitStyle style = ExitStyle::kFsck);

// What the image's state is once the run is over: `after` when a repair was written, else `before`.
const CheckResult* FinalCheck(const ImageResult& result);

// Units that the repair mended (nothing for a dry run).
uint64_t FixedUnits(const ImageResult& result, Severity severity);

// The findings to list: what is left, then (fixed = true) what a repair mended; each sorted.
std::vector<Finding> FindingsToList(const ImageResult& result);

}  // namespace imgfsck
