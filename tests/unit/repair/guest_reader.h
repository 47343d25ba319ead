// SPDX-License-Identifier: Apache-2.0
// A whole disk, sector by sector; nothing where the driver cannot read. For tests that compare what
// a guest reads before and after a repair.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "formats/format.h"
#include "repair/engine.h"

namespace imgfsck {

using Disk = std::vector<std::optional<ByteVector>>;

// Of a disk whose damaged header claims more than this, the beginning is enough.
inline constexpr uint64_t kMostRead = 16 * kMiB;

inline Disk ReadDisk(const Format& format, const ByteSource& source, const std::string& passphrase,
                     const Driver::BackingReader& backing) {
  OpenOptions options;
  options.passphrase = passphrase;
  auto driver = format.open(source, nullptr, options);
  if (!driver) return {};
  if (backing) (*driver)->SetBackingReader(backing);
  Disk disk;
  for (uint64_t at = 0; at < std::min((*driver)->VirtualSize(), kMostRead); at += kSector) {
    ByteVector sector(std::min(kSector, (*driver)->VirtualSize() - at));
    bool read = (*driver)->Read(at, sector).has_value();
    disk.push_back(read ? std::optional(sector) : std::nullopt);
  }
  return disk;
}

// Sectors that could be read and read differently now lie in what the plan declares.
inline void ExpectOnlyDeclaredChanges(const Disk& before, const Disk& after, const Plan& plan,
                                      const std::string& name) {
  for (size_t i = 0; i < before.size(); ++i) {
    if (!before[i]) continue;
    bool same = i < after.size() && after[i] == before[i];
    bool declared = std::any_of(plan.changed.begin(), plan.changed.end(), [&](const auto& range) {
      return range.guest.Contains(i * kSector);
    });
    ASSERT_TRUE(same || declared) << name << ": sector " << i;
  }
}

inline std::string DroppedPasses(const Plan& plan) {
  std::string text;
  for (const PassRun& run : plan.passes) {
    if (run.dropped) text += run.name + ": " + run.reason + "; ";
  }
  return text;
}

}  // namespace imgfsck
