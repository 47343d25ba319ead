// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/targets.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/mutate.h"

namespace imgfsck::fuzz {
namespace {

// Bytes of no known structure: flips, numbers that are limits somewhere, pieces doubled or lost.
void MutateBytes(ByteVector* bytes, std::mt19937_64& random) {
  const auto pick = [&](size_t below) { return below == 0 ? 0 : random() % below; };
  if (bytes->empty()) bytes->resize(1 + pick(40));
  const auto at = bytes->begin() + static_cast<ptrdiff_t>(pick(bytes->size()));
  const auto rest = static_cast<size_t>(bytes->end() - at);
  const auto length = static_cast<ptrdiff_t>(pick(std::min<size_t>(rest, 24)) + 1);
  switch (pick(5)) {
    case 0:
      *at = static_cast<uint8_t>(*at ^ (1u << pick(8)));
      break;
    case 1:
      std::fill_n(at, std::min<ptrdiff_t>(length, 8), static_cast<uint8_t>(0 - pick(2)));
      break;
    case 2:
      *at = static_cast<uint8_t>(random());
      break;
    case 3: {
      const ByteVector piece(at, at + length);
      if (bytes->size() < (64 << 10)) bytes->insert(at, piece.begin(), piece.end());
      break;
    }
    default:
      bytes->erase(at, at + length);
  }
}

}  // namespace

std::vector<Target> AllTargets() {
  std::vector<Target> targets;
  AddImageTargets(&targets);
  AddRecordTargets(&targets);
  return targets;
}

void Mutate(const Target& target, ByteVector* bytes, std::mt19937_64& random) {
  if (target.format != nullptr && random() % 16 != 0) {
    Mutate(bytes, *target.format, random);
    return;
  }
  for (uint64_t times = 1 + random() % 6; times > 0; --times) MutateBytes(bytes, random);
}

void Require(bool good, std::string_view promise) {
  if (good) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(promise.size()), promise.data());
  std::abort();
}

}  // namespace imgfsck::fuzz
