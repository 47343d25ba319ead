// SPDX-License-Identifier: Apache-2.0
// What an image file stores and no structure of it claims: leaked and freed clusters, slack behind
// structures, bytes behind the image's end. Each stretch with what it seems to be. Zeros and holes
// are nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analyzers/check.h"
#include "triage/facts.h"

namespace imgfsck {

struct RemnantOptions {
  size_t keep = 10000;  // remnants listed; the sums count all
  std::string folder;   // where to write each as a file; empty: nowhere
};

// Fails when a signal asked to stop, or when a file cannot be written.
Result<RemnantFacts> FindRemnants(const ByteSource& file, const ImageRows& rows,
                                  const CheckReport& report, const RemnantOptions& options);

}  // namespace imgfsck
