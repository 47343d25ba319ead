// SPDX-License-Identifier: Apache-2.0
// Which parts of a file look encrypted, and whether they follow a plan: the whole, the head, the
// tail, or one stretch after another with gaps between, as extortionists do to be quick. What is
// left of the disk then is told by its own addresses.
#pragma once

#include "model/rows.h"
#include "triage/facts.h"

namespace imgfsck {

// `rows` may be null: then only the file is looked at.
Result<EntropyFacts> ProfileEntropy(const ByteSource& file, const ImageRows* rows);

}  // namespace imgfsck
