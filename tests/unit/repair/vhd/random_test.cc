// SPDX-License-Identifier: Apache-2.0
// Random damage, from seeds: about a hundred images by default, ten thousand with IMGFSCK_LONG=1 in
// the environment, one with IMGFSCK_SEED=N. What is asserted holds for every damage there can be: a
// safe repair changes nothing that could be read and keeps all data in the file; after any repair
// that leaves no corruption no byte of the file has two owners; a second repair finds nothing to
// do.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "tests/unit/repair/vhd/random_damage.h"
#include "tests/unit/sanitized.h"

namespace imgfsck::vhd {
namespace {

template <class Test>
void ForEachSeed(const Test& test) {
  const char* one = std::getenv("IMGFSCK_SEED");
  uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  uint64_t count = kSanitized ? 30 : 100;
  if (std::getenv("IMGFSCK_LONG") != nullptr) count = 10'000;
  if (one != nullptr) count = 1;
  const auto& result = *testing::UnitTest::GetInstance()->current_test_info()->result();
  for (uint64_t seed = first; seed < first + count && result.total_part_count() < 10; ++seed) {
    SCOPED_TRACE("IMGFSCK_SEED=" + std::to_string(seed));
    test(seed);
  }
}

bool StartsWith(const ByteVector& whole, const ByteVector& start) {
  return whole.size() >= start.size() && std::equal(start.begin(), start.end(), whole.begin());
}

// Counted straight from the bytes: no two blocks of the table share a sector, none lies in the
// first 1536 bytes or past the end.
void ExpectOneOwner(const ByteVector& file, const std::string& story) {
  if (file.size() < 2048 || AsText(Bytes(file).first(8)) != "conectix") return;
  const uint64_t footer = file.size() % 512 == 511 ? 511 : 512;
  uint64_t header = BeAt<uint64_t>(file, 16);
  if (header + 1024 > file.size()) return;
  uint64_t bat = BeAt<uint64_t>(file, header + 16), entries = BeAt<uint32_t>(file, header + 28);
  uint64_t block = BeAt<uint32_t>(file, header + 32),
           length = block + (block / 4096 + 511) / 512 * 512;
  std::vector<uint64_t> starts;
  for (uint64_t i = 0; i < entries && bat + i * 4 + 4 <= file.size(); ++i) {
    uint32_t entry = BeAt<uint32_t>(file, bat + i * 4);
    if (entry != 0xFFFFFFFF) starts.push_back(uint64_t{entry} * 512);
  }
  std::sort(starts.begin(), starts.end());
  for (size_t i = 0; i < starts.size(); ++i) {
    EXPECT_GE(starts[i], 1536u) << story;
    EXPECT_LE(starts[i] + length, file.size() - footer) << story;
    EXPECT_TRUE(i == 0 || starts[i] >= starts[i - 1] + length) << story;
  }
}

// Every sector with data that the damaged file still had is somewhere in the repaired one.
void ExpectNothingDestroyed(const ByteVector& pristine, const ByteVector& damaged,
                            const ByteVector& repaired, const std::string& story) {
  uint64_t limit = std::min(pristine.size(), damaged.size()) / 512 * 512;
  for (uint64_t at = 4096; at + 512 <= limit; at += 512) {
    auto begin = damaged.begin() + static_cast<ptrdiff_t>(at);
    if (!std::equal(begin, begin + 512, pristine.begin() + static_cast<ptrdiff_t>(at))) continue;
    Bytes sector = Bytes(damaged).subspan(at, 512);
    if (AsText(sector.first(8)) == "conectix" || std::count(begin, begin + 512, *begin) == 512) {
      continue;
    }
    if (at + 512 <= repaired.size() &&
        std::equal(begin, begin + 512, repaired.begin() + static_cast<ptrdiff_t>(at))) {
      continue;
    }
    auto found = std::search(repaired.begin(), repaired.end(), begin, begin + 512);
    ASSERT_NE(found, repaired.end()) << "sector at " << at << "\n" << story;
  }
}

bool Covered(const std::vector<LayerRange>& ranges, uint64_t at) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const LayerRange& r) { return r.guest.Contains(at); });
}

// An entry that was wiped shows the guest the footer, the header and the table itself, which every
// repair changes: nobody's data.
void Forget(ByteVector* guest, uint64_t block) {
  uint64_t begin = std::min<uint64_t>(block * kTestBlock, guest->size());
  uint64_t end = std::min<uint64_t>(begin + kTestBlock, guest->size());
  std::fill(guest->begin() + static_cast<ptrdiff_t>(begin),
            guest->begin() + static_cast<ptrdiff_t>(end), 0);
}

class Trial {
 public:
  explicit Trial(uint64_t seed) {
    Damager damager(seed);
    MemoryStore store = damager.Make();
    pristine_ = store.bytes();
    did_ = damager.Damage(store);
    damaged_ = store.bytes();
    child_ = damager.child();
  }
  void SafeLosesNothing() const;
  void AllListsWhatIsLost() const;

 private:
  void ForgetWiped(ByteVector& guest) const {
    for (uint64_t i = 0; kDefaultTableOffset + i * 4 + 4 <= damaged_.size() && i < 64; ++i) {
      if (BeAt<uint32_t>(damaged_, kDefaultTableOffset + i * 4) == 0) Forget(&guest, i);
    }
  }
  std::string About(const Plan& plan) const { return did_ + "\n" + Story(plan); }

  ByteVector pristine_, damaged_;
  std::string did_;
  bool child_ = false;
};

void Trial::SafeLosesNothing() const {
  MemoryStore store(damaged_);
  Plan plan = Repaired(store, RepairMode::kSafe);
  EXPECT_TRUE(store.bytes() == damaged_);
  ByteVector repaired = BytesOf(*plan.overlay);
  auto before = QemuContent(damaged_), after = QemuContent(repaired);
  if (before) {
    ASSERT_TRUE(after) << About(plan);
    ForgetWiped(*before);
    ForgetWiped(*after);
    EXPECT_TRUE(StartsWith(*after, *before)) << About(plan);
  }
  ExpectNothingDestroyed(pristine_, damaged_, repaired, About(plan));
  if (plan.Final().findings.Units(Severity::kCorruption) == 0) {
    ExpectOneOwner(repaired, About(plan));
    EXPECT_TRUE(after) << About(plan);
  }
  EXPECT_TRUE(plan.lost.empty() && plan.changed.empty()) << About(plan);
  EXPECT_TRUE(Repaired(*plan.overlay, RepairMode::kSafe).Empty()) << About(plan);
}

void Trial::AllListsWhatIsLost() const {
  MemoryStore store(damaged_);
  Plan plan = Repaired(store, RepairMode::kAll);
  ASSERT_LT(plan.overlay->Size(), damaged_.size() + pristine_.size() + (1 << 20)) << About(plan);
  ByteVector repaired = BytesOf(*plan.overlay);
  auto before = QemuContent(damaged_), after = QemuContent(repaired),
       whole = QemuContent(pristine_);
  ASSERT_TRUE(whole);
  ExpectNothingDestroyed(pristine_, damaged_, repaired, About(plan));
  if (plan.Final().findings.Units(Severity::kCorruption) == 0) {
    ExpectOneOwner(repaired, About(plan));
    ASSERT_TRUE(after) << About(plan);
  }
  // Sector by sector: as it was before the damage, as it was read with the damage, or named.
  for (uint64_t at = 0; before && after && at + 512 <= before->size(); at += 512) {
    auto same = [&](const ByteVector& other) {
      return at + 512 <= other.size() && at + 512 <= after->size() &&
             std::equal(after->begin() + static_cast<ptrdiff_t>(at),
                        after->begin() + static_cast<ptrdiff_t>(at + 512),
                        other.begin() + static_cast<ptrdiff_t>(at));
    };
    if (same(*before) || same(*whole)) continue;
    bool announced = Covered(plan.lost, at);
    for (const Finding& f : plan.before.findings.kept()) {
      bool grave = f.severity_or_default() == Severity::kCorruption;
      announced = announced || (grave && f.guest && f.guest->Contains(at));
    }
    for (const PassRun& run : plan.passes) {
      announced = announced || (!run.dropped && Covered(run.outcome.changed, at));
    }
    ASSERT_TRUE(announced) << "guest sector at " << at << "\n" << About(plan);
  }
  EXPECT_TRUE(Repaired(*plan.overlay, RepairMode::kAll).Empty()) << About(plan);
}

TEST(VhdRandom, SafeLosesNothing) {
  ForEachSeed([](uint64_t seed) { Trial(seed).SafeLosesNothing(); });
}
TEST(VhdRandom, AllListsWhatIsLost) {
  ForEachSeed([](uint64_t seed) { Trial(seed).AllListsWhatIsLost(); });
}

}  // namespace
}  // namespace imgfsck::vhd
