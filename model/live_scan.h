// SPDX-License-Identifier: Apache-2.0
// What a virtual table can do with a WHERE and an ORDER BY: the plan that SQLite asks for, and the
// values it hands over when the scan starts. Internal to model/.
#pragma once

#include <sqlite3.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace imgfsck {

// The columns that a scan understands.
enum class ColumnRole : char {
  kNone = '-',
  kImage = 'i',  // constant
  kLayer = 'l',
  kGuest = 'g',       // where a row's guest range starts
  kHost = 'h',        // where a row's host range starts
  kGuestAt = 'G',     // hidden: a byte that the guest range holds
  kHostAt = 'H',      // hidden: a byte that the host range holds
  kPerCluster = 'c',  // hidden
};

// Which rows are wanted. SQLite checks the visible columns again, so a scan may yield more.
struct Scan {
  struct Starts {
    uint64_t first = 0, last = UINT64_MAX;  // inclusive
    bool Contains(uint64_t start) const { return start >= first && start <= last; }
    bool all() const { return first == 0 && last == UINT64_MAX; }
  };
  bool nothing = false;  // no row can meet the constraints
  std::optional<std::string> layer;
  Starts guest, host;
  std::optional<uint64_t> guest_at, host_at;
  bool per_cluster = false;
};

// How a table is scanned; `roles` by column.
struct ScanShape {
  std::vector<ColumnRole> roles;
  bool one_layer = false;      // the image has but one
  bool guest_ordered = false;  // rows of a layer ascend by guest offset
};

int PlanScan(const ScanShape& shape, sqlite3_index_info* info);      // for xBestIndex
Scan ReadScan(const char* plan, int count, sqlite3_value** values);  // for xFilter

}  // namespace imgfsck
