// SPDX-License-Identifier: Apache-2.0
// What is found out about one file, as plain data: a worker (examine.h) fills it piece by piece and
// sends it, the reports read it. Everything that comes from an image is untrusted text.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "model/finding.h"
#include "model/rows.h"
#include "triage/content.h"
#include "triage/hashing.h"
#include "triage/reasons.h"

namespace imgfsck {

enum class FileKind : uint8_t { kUnknown, kUnreadable, kOther, kImage };

// A signature that was found in the file, or on the disk in it.
struct Signature {
  std::string name;
  ContentKind kind{};
  uint64_t offset = 0, length = 0;
};

struct IdentityFacts {
  FileKind kind = FileKind::kUnknown;
  std::string trouble;          // kUnreadable: why
  std::string format, version;  // "qcow2", "3"
  bool examined = false;        // a format that can be checked, not only recognised
  uint64_t file_size = 0, stored = 0, virtual_size = 0, cluster_size = 0;
  bool in_use = false;                  // a running program writes to it
  std::string id, parent_id;            // of formats that have such; hex
  std::optional<int64_t> parent_mtime;  // Unix time that the image recorded of what it builds on
  std::vector<Signature> signatures;    // of the file
  std::vector<Signature> guest_signatures;  // of the disk in it
  std::vector<LinkRow> links;
  std::vector<SnapshotRow> snapshots;
  std::vector<BitmapRow> bitmaps;
};

struct ProblemTotal {
  std::string code;
  uint64_t findings = 0, units = 0;
};

struct CheckFacts {
  bool done = false;
  std::string trouble;  // why it is not done
  std::vector<Finding> findings;
  std::vector<ProblemTotal> totals;
  std::array<uint64_t, 4> findings_by_severity{}, units_by_severity{};  // by Severity
  uint64_t check_errors = 0, image_end_offset = 0, total_clusters = 0, allocated_clusters = 0;

  uint64_t Findings(Severity s) const { return findings_by_severity[static_cast<size_t>(s)]; }
  uint64_t Units(Severity s) const { return units_by_severity[static_cast<size_t>(s)]; }
  bool AnyFrom(Severity least) const {
    for (size_t s = static_cast<size_t>(least); s < 4; ++s) {
      if (findings_by_severity[s] > 0) return true;
    }
    return false;
  }
};

struct ImageFacts {
  IdentityFacts identity;
  std::vector<Reason> reasons;
  HashFacts container, content;  // of the file's bytes; of the disk's, as its guest reads them
  CheckFacts check;
  std::string stage;      // the last one that began
  bool complete = false;  // all stages came to their end
};

}  // namespace imgfsck
