// SPDX-License-Identifier: Apache-2.0
// Small sound images of every format, made by the formats' own drivers: what fuzzing and fault
// loops begin with. The same in every run.
#pragma once

#include <string>
#include <vector>

#include "formats/format.h"

namespace imgfsck::fuzz {

struct Seed {
  std::string name;
  ByteVector bytes;
};

// Empty for a format that nothing can be created in.
std::vector<Seed> SeedsOf(const Format& format);

}  // namespace imgfsck::fuzz
