// SPDX-License-Identifier: Apache-2.0
// VMDKs in memory: a sound one has no reason against it, and whatever is done to its bytes, judging
// it comes to an end without harm. tests/imglib/hostile_vmdk.py holds each reason to an attack.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

constexpr uint64_t kVmdkDisk = 64 * kTiB;
constexpr size_t kVmdkDirectory = 21, kVmdkTable = 22, kVmdkFirstGrain = 32;  // sectors
constexpr size_t kVmdkGrain = 16;

// 2 MiB in grains of 8 KiB, of which three are there; compressed ones in `stream`.
ByteVector SoundVmdk(bool stream) {
  ByteVector bytes((kVmdkFirstGrain + 3 * kVmdkGrain) * kSector);
  auto put = [&](size_t at, std::string_view text) {
    std::ranges::copy(AsBytes(text), bytes.begin() + static_cast<ptrdiff_t>(at));
  };
  put(0, "KDMV");
  PutLe<uint32_t>(bytes, 4, stream ? 3 : 1);
  PutLe<uint32_t>(bytes, 8, stream ? 0x30001 : 1);
  PutLe<uint64_t>(bytes, 12, 4096);
  PutLe<uint64_t>(bytes, 20, kVmdkGrain);
  PutLe<uint64_t>(bytes, 28, 1);
  PutLe<uint64_t>(bytes, 36, 20);
  PutLe<uint32_t>(bytes, 44, 512);
  PutLe<uint64_t>(bytes, 56, kVmdkDirectory);
  PutLe<uint64_t>(bytes, 64, kVmdkFirstGrain);
  put(73, "\n \r\n");
  bytes[77] = stream ? 1 : 0;
  put(kSector,
      "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
      "createType=\"monolithicSparse\"\nRW 4096 SPARSE \"a.vmdk\"\nddb.adapterType = \"ide\"\n");
  PutLe<uint32_t>(bytes, kVmdkDirectory * kSector, kVmdkTable);
  for (size_t i = 0; i < 3; ++i) {
    const size_t sector = kVmdkFirstGrain + i * kVmdkGrain;
    PutLe<uint32_t>(bytes, kVmdkTable * kSector + i * 4, static_cast<uint32_t>(sector));
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(sector * kSector), 2000, uint8_t{0x41});
    if (!stream) continue;
    PutLe<uint64_t>(bytes, sector * kSector, i * kVmdkGrain);
    PutLe<uint32_t>(bytes, sector * kSector + 8, 1988);
  }
  return bytes;
}

std::vector<Reason> ReasonsOfVmdk(ByteVector bytes) {
  const MemoryStore file(std::move(bytes));
  ReasonCollector out(file);
  JudgeVmdk(kVmdkDisk, out);
  return out.Take();
}

TEST(Vmdk, SoundOnesHaveNothingAgainstThem) {
  for (const bool stream : {false, true}) {
    for (const Reason& reason : ReasonsOfVmdk(SoundVmdk(stream))) {
      ADD_FAILURE() << stream << ' ' << InfoOf(reason.code).name << ' ' << reason.detail;
    }
  }
}

TEST(Vmdk, AnyBytesComeToAnEnd) {
  std::mt19937 random(7);
  auto below = [&](size_t limit) { return static_cast<size_t>(random() % limit); };
  for (int round = 0; round < 4000; ++round) {
    ByteVector bytes = SoundVmdk(round % 2 == 0);
    if (round % 5 == 0) bytes.resize(below(bytes.size()));
    for (size_t change = 1 + below(6); change > 0 && !bytes.empty(); --change) {
      // The header, the descriptor, the tables, a grain's marker.
      constexpr size_t kPlaces[] = {0, kSector, kVmdkDirectory * kSector, kVmdkTable * kSector,
                                    kVmdkFirstGrain * kSector};
      const size_t at = kPlaces[below(std::size(kPlaces))] + below(96);
      if (at >= bytes.size()) continue;
      constexpr uint8_t kValues[] = {0, 1, 0x7F, 0x80, 0xFF};
      bytes[at] =
          below(2) == 0 ? kValues[below(std::size(kValues))] : static_cast<uint8_t>(random() % 256);
    }
    EXPECT_LT(ReasonsOfVmdk(std::move(bytes)).size(), 100U);
  }
}

TEST(Vmdk, AFileOfNothingButTheMagic) {
  ByteVector bytes(4);
  std::ranges::copy(AsBytes("KDMV"), bytes.begin());
  EXPECT_FALSE(ReasonsOfVmdk(bytes).empty());
  bytes.resize(100);
  EXPECT_FALSE(ReasonsOfVmdk(bytes).empty());
}

}  // namespace
}  // namespace imgfsck
