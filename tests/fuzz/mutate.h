// SPDX-License-Identifier: Apache-2.0
// Damages an image where it hurts: asks the format's own walk where fields, tables and regions are,
// and puts values there that are wrong in an interesting way.
#pragma once

#include <random>

#include "formats/format.h"

namespace imgfsck::fuzz {

inline constexpr size_t kLargestImage = 512 << 10;  // bytes; no mutation makes a larger one

void Mutate(ByteVector* image, const Format& format, std::mt19937_64& random);

}  // namespace imgfsck::fuzz
