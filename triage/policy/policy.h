// SPDX-License-Identifier: Apache-2.0
// What speaks against opening an untrusted image: found in its own bytes, without opening, looking
// up or contacting anything that they name.
#pragma once

#include <string>
#include <vector>

#include "triage/identify.h"

namespace imgfsck {

struct PolicyOptions {
  uint64_t max_disk = 64 * kTiB;  // a larger disk is absurd
};

// By the header and what it names, before anything is walked.
std::vector<Reason> FindReasons(const Subject& subject, const IdentityFacts& facts,
                                const PolicyOptions& options);

// By what the check found.
std::vector<Reason> ReasonsOfFindings(const CheckFacts& check, const ByteSource& file);

}  // namespace imgfsck
