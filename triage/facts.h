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
#include "model/name_facts.h"
#include "model/rows.h"
#include "triage/content.h"
#include "triage/hashing.h"
#include "triage/picture.h"
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
  std::optional<int64_t> created;       // Unix time
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

// Where unclaimed bytes were found.
enum class RemnantOrigin : uint8_t {
  kLeaked,       // counted as used, and nobody claims them
  kFree,         // between what is claimed
  kSlack,        // behind a structure, in the unit that it ends in
  kHeaderSlack,  // in the header's cluster, behind all that it holds
  kTrailing,     // behind everything
  kEnd,
};
std::string_view ToText(RemnantOrigin origin);

// What they seem to be.
enum class RemnantClass : uint8_t {
  kData,
  kText,
  kCompressed,
  kRandom,       // encrypted, or random
  kFileSystem,   // begins as a file system, partition table or image does
  kKnownHeader,  // begins as a file of a known kind does
  kTable,        // a table of the image's own, no longer in use
  kEnd,
};
std::string_view ToText(RemnantClass kind);

struct Remnant {
  uint64_t host_offset = 0, length = 0;
  RemnantOrigin origin{};
  RemnantClass kind{};
  std::string what;                      // "l2 table", "SQLite database" …
  double entropy = 0;                    // bits a byte
  std::optional<uint64_t> guest_offset;  // where it belonged, when that is known
  std::string file, sha256;              // of the copy that was written, if one was
};

struct RemnantFacts {
  bool done = false;
  std::vector<Remnant> remnants;  // ascending
  uint64_t count = 0;             // the true number
  uint64_t bytes = 0;             // that are not zero, by units
  uint64_t zero_bytes = 0, unreadable_bytes = 0;
  std::array<uint64_t, static_cast<size_t>(RemnantOrigin::kEnd)> bytes_by_origin{};
  std::array<uint64_t, static_cast<size_t>(RemnantClass::kEnd)> bytes_by_kind{};
};

struct EntropyFacts {
  bool done = false;
  std::string trouble;                                         // why it is not done
  uint64_t block = 0;                                          // bytes told apart
  uint64_t zero_bytes = 0, plain_bytes = 0, random_bytes = 0;  // of the file
  uint64_t head = 0, tail = 0;         // bytes that look encrypted, from either end
  uint64_t plan_on = 0, plan_off = 0;  // bytes that do and do not, again and again
  uint64_t plan_begin = 0, plan_end = 0, plan_repeats = 0;
  uint64_t disk_plain_bytes = 0, disk_random_bytes = 0;
  std::vector<GuestRange> disk_plain;  // what is left of the disk
  uint64_t disk_plain_more = 0;        // ranges not listed
  std::vector<HostRange> file_plain;   // what is left of the file, where it is no image any more
  uint64_t file_plain_more = 0;
};

// A row that a user's rule yielded.
struct RuleHit {
  std::string severity, message;
  std::optional<uint64_t> offset, length;  // in the file
};
struct RuleFacts {
  std::string rule;
  std::string trouble;  // why it did not run to its end
  std::vector<RuleHit> hits;
  bool more = false;  // there are further ones
};

struct ImageFacts {
  IdentityFacts identity;
  std::vector<Reason> reasons;
  HashFacts container, content;  // of the file's bytes; of the disk's, as its guest reads them
  CheckFacts check;
  Picture file_picture, disk_picture;
  RemnantFacts remnants;
  EntropyFacts entropy;
  std::vector<RuleFacts> rules;
  NameFacts names;            // of the guest's files that findings concern
  std::string model_trouble;  // why its model is not in the database
  std::string stage;          // the last one that began
  bool complete = false;      // all stages came to their end
};

}  // namespace imgfsck
