// SPDX-License-Identifier: Apache-2.0
#include "base/range_set.h"

#include <gtest/gtest.h>

#include <random>

namespace imgfsck {
namespace {

constexpr uint64_t kBytes = 40;

// The same set, a bit a byte.
uint64_t Bits(RangeSet& set) {
  uint64_t bits = 0;
  uint64_t last_end = 0;
  for (const auto& [begin, end] : set.Ranges()) {
    EXPECT_LT(begin, end);
    EXPECT_TRUE(last_end == 0 || begin > last_end) << "ranges touch";
    last_end = end;
    for (uint64_t at = begin; at < end; ++at) bits |= uint64_t{1} << at;
  }
  return bits;
}

class RandomSets {
 public:
  RangeSet Next(uint64_t* bits) {
    RangeSet set;
    *bits = 0;
    for (uint64_t n = random_() % 6; n > 0; --n) {
      const uint64_t begin = random_() % kBytes, length = random_() % (kBytes - begin);
      set.Add(begin, length);
      for (uint64_t at = begin; at < begin + length; ++at) *bits |= uint64_t{1} << at;
    }
    return set;
  }

 private:
  std::mt19937_64 random_{7};
};

TEST(RangeSet, IsASetOfBytes) {
  RandomSets random;
  for (int round = 0; round < 2000; ++round) {
    uint64_t expected = 0, others = 0;
    RangeSet set = random.Next(&expected), other = random.Next(&others);
    EXPECT_EQ(Bits(set), expected);
    EXPECT_EQ(set.Empty(), expected == 0);
    RangeSet rest = set.Without(other);
    EXPECT_EQ(Bits(rest), expected & ~others);
    for (uint64_t at = 0; at < kBytes; ++at) {
      EXPECT_EQ(set.Overlaps(at, 1), (expected >> at & 1) != 0);
      EXPECT_EQ(set.Covers(at, 1), (expected >> at & 1) != 0);
      EXPECT_EQ(set.Covers(at, 3), (expected >> at & 7) == 7);
      EXPECT_EQ(set.Overlaps(at, 3), (expected >> at & 7) != 0);
    }
  }
}

TEST(RangeSet, EndsAtTheEndOfAllNumbers) {
  RangeSet set;
  set.Add(UINT64_MAX - 5, 100);
  EXPECT_TRUE(set.Covers(UINT64_MAX - 1, 1));
  EXPECT_FALSE(set.Overlaps(UINT64_MAX - 7, 2));
}

}  // namespace
}  // namespace imgfsck
