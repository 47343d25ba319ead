// SPDX-License-Identifier: Apache-2.0
// Finds the clusters of a run of guest clusters whose mapping is gone, from where their neighbours
// lie: an image that was filled in guest order has them in between, or right behind.
#pragma once

#include <optional>
#include <vector>

#include "analyzers/qcow2/orphans.h"

namespace imgfsck::qcow2 {

struct SequenceRun {
  uint64_t count = 0;                    // guest clusters in a row without a mapping
  std::optional<uint64_t> left, right;   // host clusters of the guest clusters before and behind
  uint64_t left_run = 0, right_run = 0;  // guest clusters before (behind) in host order too
  bool was_mapped = false;               // damage is known to have been there
};

struct RunMatch {
  std::vector<uint64_t> clusters;  // one a guest cluster; 0: not found
  double confidence = 0;           // 0: nothing was found
  std::string_view evidence;
};

RunMatch MatchRun(const CheckState& state, const Orphans& orphans, const SequenceRun& run);

}  // namespace imgfsck::qcow2
