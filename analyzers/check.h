// SPDX-License-Identifier: Apache-2.0
// Runs the whole check of one image: the format's walk, then the analyzers over it. Read-only; the
// same function judges an overlay after a repair pass.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/format.h"
#include "io/byte_source.h"
#include "model/finding.h"

namespace imgfsck {

// Called now and then from the checking thread: done of total, in a unit of the phase's own.
using ProgressFn = std::function<void(std::string_view phase, uint64_t done, uint64_t total)>;

struct CheckOptions {
  std::string path;      // of the image, for messages and relative names; may be empty
  bool deep = false;     // also decode payload (compressed clusters, sector bitmaps …)
  bool chain = false;    // also check what the image names (backing files, parents)
  unsigned threads = 0;  // 0: the machine's cores
  size_t max_findings = Findings::kDefaultKeep;  // kept, of each problem
  std::string passphrase;
  std::string size_policy = "auto";
  std::string profile;  // "azure" …; empty: none
  ProgressFn progress;
};

// An image that the one that was checked builds on.
struct ImageBelow {
  std::string path;
  const Format* format = nullptr;
};

// qemu-img check's numbers; a "cluster" is the format's unit of allocation.
struct CheckCounts {
  uint64_t image_end_offset = 0;  // bytes
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0,
           compressed_clusters = 0;
  uint64_t check_errors = 0;  // what the check could not do (unreadable ranges)
};

struct CheckReport {
  const Format* format = nullptr;
  std::string version;  // "2", "3", "dynamic" …
  uint64_t virtual_size = 0, file_size = 0, cluster_size = 0;
  CheckCounts counts;
  Findings findings;
  std::unique_ptr<ImageRows> rows;  // the walked image, for SQL; refers to the source
  // stored and referenced runs for the SQL table `refcount`; null where the format has no counts.
  std::function<std::unique_ptr<RowCursor<RefcountRow>>(const RowQuery&)> refcounts;
  std::shared_ptr<void> detail;   // for this format's repair passes; owned by its checker
  std::vector<ImageBelow> chain;  // with --chain: the images below, raw ones left out
};

// A format's checker, analyzers/<format>/. Listed in check.cc.
struct Checker {
  std::string_view format;
  // Fails only when the tool cannot work (memory, interrupted); never for damage.
  Status (*run)(const ByteSource& source, const CheckOptions& options, CheckReport* report);
};

Result<CheckReport> CheckImage(const ByteSource& source, const Format& format,
                               const CheckOptions& options);

}  // namespace imgfsck
