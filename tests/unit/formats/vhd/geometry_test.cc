// SPDX-License-Identifier: Apache-2.0
// The figures are those of the format's fact sheet, found by brute force and seen in real images.
#include "formats/vhd/geometry.h"

#include <gtest/gtest.h>

namespace imgfsck::vhd {
namespace {

TEST(VhdGeometry, ShrinksWhereTheSpecificationSaysSo) {
  EXPECT_EQ(GeometryFor(69631).Sectors(), 69564u);
  EXPECT_EQ(GeometryFor(69632).Sectors(), 69440u);
  EXPECT_EQ(GeometryFor(69648).Sectors(), 69440u);
  EXPECT_EQ(GeometryFor(69649).Sectors(), 69615u);
  EXPECT_EQ(GeometryFor(507903).Sectors(), 507408u);
  EXPECT_EQ(GeometryFor(507904).Sectors(), 507024u);
}

TEST(VhdGeometry, Limits) {
  EXPECT_EQ(GeometryFor(65535ull * 16 * 63), (Geometry{16191, 16, 255}));
  EXPECT_EQ(GeometryFor(~0ull), kSaturatedGeometry);
  EXPECT_EQ(GeometryFor(0).Sectors(), 0u);
  EXPECT_EQ(GeometryFor(0x1FC0000000 / 512), (Geometry{65278, 16, 255}));
}

TEST(VhdGeometry, RoundsAsQemuDoes) {
  EXPECT_EQ(RoundUpToGeometry(10 * 2048), 20536u);
  EXPECT_EQ(RoundUpToGeometry(1) * 512, 34816u);
  EXPECT_EQ(RoundUpToGeometry(2048), 2108u);
  EXPECT_EQ(RoundUpToGeometry(kMaxGeometrySectors + 5), kMaxGeometrySectors + 5);
}

TEST(VhdGeometry, RoundingIsIdempotentAndOvershootsLittle) {
  for (uint64_t sectors = 1; sectors < 1'100'000; sectors += 97) {
    uint64_t rounded = RoundUpToGeometry(sectors);
    EXPECT_GE(rounded, sectors);
    EXPECT_LE(rounded - sectors, 4079u);
    EXPECT_EQ(RoundUpToGeometry(rounded), rounded);
  }
}

TEST(VhdGeometry, SizeGoesByTheCreator) {
  Footer footer;
  footer.current_size = 1024 * 1024 * 1024;
  footer.geometry = GeometryFor(footer.current_size / 512);
  const uint64_t chs = ChsBytes(footer);
  ASSERT_LT(chs, footer.current_size);
  for (auto [creator, ours, qemu] : {std::tuple{kCreatorVpc, chs, chs},
                                     {kCreatorQemu, chs, chs},
                                     {kCreatorQem2, footer.current_size, footer.current_size},
                                     {kCreatorWin, footer.current_size, footer.current_size},
                                     {kCreatorD2v, footer.current_size, chs},
                                     {kCreatorTap, footer.current_size, footer.current_size},
                                     {kCreatorVbox, footer.current_size, chs},
                                     {FourCc("zzzz"), footer.current_size, chs}}) {
    footer.creator_app = creator;
    EXPECT_EQ(VirtualSize(footer, SizePolicy::kAuto), ours) << FourCcText(creator);
    EXPECT_EQ(QemuVirtualSize(footer), qemu) << FourCcText(creator);
    EXPECT_EQ(VirtualSize(footer, SizePolicy::kChs), chs);
    EXPECT_EQ(VirtualSize(footer, SizePolicy::kCurrentSize), footer.current_size);
    Footer saturated = footer;
    saturated.geometry = kSaturatedGeometry;
    EXPECT_EQ(VirtualSize(saturated, SizePolicy::kChs), footer.current_size);
    EXPECT_EQ(QemuVirtualSize(saturated), footer.current_size);
  }
}

}  // namespace
}  // namespace imgfsck::vhd
