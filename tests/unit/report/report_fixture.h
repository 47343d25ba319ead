// SPDX-License-Identifier: Apache-2.0
// A result with damage, for the reports' tests.
#pragma once

#include <gtest/gtest.h>

#include "report/result.h"
#include "tests/unit/fake_rows.h"

namespace imgfsck {

inline Problem ProblemWith(Severity severity, RepairClass repair, size_t nth = 0) {
  for (const ProblemInfo& info : AllProblems()) {
    if (info.severity == severity && info.repair == repair && nth-- == 0) return info.problem;
  }
  ADD_FAILURE() << "the registry has too few problems";
  return AllProblems().front().problem;
}

class ReportTest : public testing::Test {
 protected:
  ReportTest() {
    SnapshotRow snapshot;
    snapshot.id = "2";
    snapshot.name = "daily\x1b[2J";
    rows_.snapshots.push_back(snapshot);
    result_.path = "/images/disk.qcow2";
    result_.before = CheckOf(before_);
  }

  CheckResult CheckOf(const Findings& findings) {
    CheckResult check;
    check.format = "qcow2";
    check.version = "3";
    check.virtual_size = 20 * kGiB;
    check.file_size = 3 * kGiB;
    check.cluster_size = 64 * kKiB;
    check.image_end_offset = 3221225472;
    check.total_clusters = 327680;
    check.allocated_clusters = 49152;
    check.fragmented_clusters = 100;
    check.compressed_clusters = 7;
    check.findings = &findings;
    check.rows = &rows_;
    return check;
  }

  static Finding Make(Problem problem, uint64_t host, uint64_t count = 1) {
    Finding finding;
    finding.problem = problem;
    finding.structure = "l2[7]";
    finding.host = MakeHostRange(host, count * 0x10000);
    finding.count = count;
    return finding;
  }

  static RepairSummary Summary(const char* mode, bool dry_run, uint64_t patches) {
    RepairSummary repair;
    repair.mode = mode;
    repair.dry_run = dry_run;
    repair.patches = patches;
    repair.verified = true;
    return repair;
  }

  Problem corruption_ = ProblemWith(Severity::kCorruption, RepairClass::kSafe);
  Problem lossy_ = ProblemWith(Severity::kCorruption, RepairClass::kAll);
  Problem leak_ = ProblemWith(Severity::kLeak, RepairClass::kSafe);
  Problem warning_ = ProblemWith(Severity::kWarning, RepairClass::kSafe);
  Problem info_ = ProblemWith(Severity::kInfo, RepairClass::kNone);
  FakeRows rows_;
  Findings before_, after_;
  ImageResult result_;
};

}  // namespace imgfsck
