// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/parse.h"

#include <gtest/gtest.h>

#include "formats/vhd/encode.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

ByteVector Counting(size_t size) {
  ByteVector bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + 3);
  return bytes;
}

TEST(VhdParse, SealingKeepsEveryByteOfAFooterButCookieAndChecksum) {
  ByteVector bytes = Counting(kFooterSize);
  Footer footer = ParseFooter(bytes);
  Bytes sealed = Seal(&footer);
  for (size_t i = 0; i < kFooterSize; ++i) {
    bool made = i < 8 || (i >= 64 && i < 68);
    EXPECT_TRUE(made || sealed[i] == bytes[i]) << i;
  }
  EXPECT_TRUE(ParseFooter(sealed).HasCookie());
  EXPECT_TRUE(ParseFooter(sealed).ChecksumValid());
}

TEST(VhdParse, SealingKeepsEveryByteOfAHeaderButCookieAndChecksum) {
  ByteVector bytes = Counting(kHeaderSize);
  DynHeader header = ParseHeader(bytes);
  Bytes sealed = Seal(&header);
  for (size_t i = 0; i < kHeaderSize; ++i) {
    bool made = i < 8 || (i >= 36 && i < 40);
    EXPECT_TRUE(made || sealed[i] == bytes[i]) << i;
  }
  EXPECT_TRUE(ParseHeader(sealed).HasCookie());
  EXPECT_TRUE(ParseHeader(sealed).ChecksumValid());
}

TEST(VhdParse, BatmapHeaderSurvives) {
  ByteVector bytes = Counting(kBatmapHeaderSize);
  BatmapHeader header = ParseBatmapHeader(bytes);
  EXPECT_FALSE(header.HasCookie());
  Bytes sealed = Seal(&header);
  for (size_t i = 8; i < kBatmapHeaderSize; ++i) EXPECT_EQ(sealed[i], bytes[i]) << i;
  EXPECT_TRUE(ParseBatmapHeader(sealed).HasCookie());
}

TEST(VhdParse, EveryFooterBitChangesTheChecksumVerdict) {
  ByteVector bytes = Counting(kFooterSize);
  Footer footer = ParseFooter(bytes);
  Bytes sealed = Seal(&footer);
  ByteVector damaged(sealed.begin(), sealed.end());
  for (size_t bit = 0; bit < kFooterSize * 8; ++bit) {
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_FALSE(ParseFooter(damaged).ChecksumValid()) << bit;
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
}

TEST(VhdParse, LegacyFooterHasTheSameChecksum) {
  Footer footer;
  footer.disk_type = 2;
  Bytes sealed = Seal(&footer);
  EXPECT_EQ(sealed[511], 0);
  EXPECT_TRUE(ParseFooter(sealed.first(kLegacyFooterSize)).ChecksumValid());
}

TEST(VhdParse, OldTapFootersMayIgnoreTheHiddenMark) {
  Footer footer;
  footer.creator_app = kCreatorTap;
  footer.creator_version = 0x00010001;
  Seal(&footer);
  footer.raw[footer_at::kHidden] = 1;
  EXPECT_TRUE(ParseFooter(footer.raw).ChecksumValid());
  footer.creator_version = 0x00010003;
  footer.hidden = 0;
  Seal(&footer);
  footer.raw[footer_at::kHidden] = 1;
  EXPECT_FALSE(ParseFooter(footer.raw).ChecksumValid());
}

TEST(VhdParse, BatmapChecksums) {
  ByteVector map(512);
  EXPECT_EQ(MapChecksum(map, kBatmapVersion), 0xFFFFFFFFu);
  map[0] = 0xC0;
  EXPECT_EQ(MapChecksum(map, kBatmapVersion), 0xFFFFFF3Fu);
  EXPECT_EQ(MapChecksum(map, kBatmapVersionSigned), 0x3Fu);  // NOT(-64)
}

TEST(VhdParse, LocatorSpaceIsInSectorsOrBytes) {
  EXPECT_EQ(Locator{.data_space = 1}.SpaceBytes(), 512u);
  EXPECT_EQ(Locator{.data_space = 512}.SpaceBytes(), 512u);
  EXPECT_EQ(Locator{.data_space = 511}.SpaceBytes(), 511u * 512);
  EXPECT_EQ(Locator{.data_space = 513}.SpaceBytes(), std::nullopt);
}

TEST(VhdParse, BitsCountFromTheMostSignificant) {
  ByteVector bitmap(2);
  SetBit(bitmap, 1, true);
  SetBit(bitmap, 2, true);
  EXPECT_EQ(bitmap[0], 0x60);
  SetBit(bitmap, 12, true);
  EXPECT_EQ(bitmap[1], 0x08);
  EXPECT_TRUE(BitAt(bitmap, 12));
  SetBit(bitmap, 12, false);
  EXPECT_EQ(bitmap[1], 0);
}

TEST(VhdNames, Utf16RoundTrip) {
  const std::string text = "b\xC3\xA4r \xE2\x82\xAC \xF0\x9F\x98\x80.vhd";
  for (ByteOrder order : {ByteOrder::kLittle, ByteOrder::kBig}) {
    ByteVector encoded = EncodeUtf16(text, order);
    EXPECT_EQ(encoded.size(), 2u * 12);
    DecodedText decoded = DecodeUtf16(encoded, order);
    EXPECT_TRUE(decoded.valid);
    EXPECT_EQ(decoded.utf8, text);
  }
}

TEST(VhdNames, DamagedUtf16IsSaidToBe) {
  EXPECT_FALSE(DecodeUtf16(ByteVector{0x41, 0, 0x42}, ByteOrder::kLittle).valid);
  EXPECT_FALSE(DecodeUtf16(ByteVector{0xD8, 0, 0, 0x41}, ByteOrder::kBig).valid);
  EXPECT_FALSE(DecodeUtf16(ByteVector{0, 0x41, 0, 0, 0, 0x42}, ByteOrder::kBig).valid);
  EXPECT_TRUE(DecodeUtf16(ByteVector{0, 0x41, 0, 0, 0, 0}, ByteOrder::kBig).valid);
}

TEST(VhdNames, LocatorsRoundTrip) {
  for (uint32_t code : {kLocatorW2ru, kLocatorW2ku, kLocatorMacX}) {
    for (const char* path : {"./p.vhd", "../x y%/p.vhd", "/abs/p#.vhd"}) {
      DecodedText text = DecodeLocator(code, EncodeLocator(code, path));
      EXPECT_TRUE(text.valid);
      std::string back = LocatorPath(code, text.utf8);
      EXPECT_TRUE(back == path || back == std::string("./") + path) << back;
    }
  }
}

TEST(VhdNames, ForeignLocators) {
  EXPECT_EQ(LocatorPath(kLocatorW2ku, "C:\\vm\\p.vhd"), "/vm/p.vhd");
  EXPECT_EQ(LocatorPath(kLocatorMacX, "file://localhost/a%20b/p.vhd"), "/a b/p.vhd");
  EXPECT_EQ(LocatorPath(kLocatorMacX, "file://./p.vhd"), "./p.vhd");
  EXPECT_EQ(LocatorPath(kLocatorMacX, "http://x/p.vhd"), "");
  EXPECT_EQ(LocatorPath(kLocatorMacX, "file:///a%2"), "/a%2");
  EXPECT_EQ(LocatorPath(kLocatorMac, "x"), "");
  EXPECT_EQ(Basename("a\\b/c.vhd"), "c.vhd");
}

TEST(VhdNames, Dates) {
  EXPECT_EQ(DateText(0), "2000-01-01T00:00:00Z");
  EXPECT_EQ(DateText(0xFFFFFFFF), "2136-02-07T06:28:15Z");
}

TEST(VhdNames, ParentNameIsCutToItsField) {
  DynHeader header;
  EXPECT_TRUE(SetParentName(&header, "p.vhd"));
  EXPECT_EQ(DecodeUtf16(header.ParentName(), ByteOrder::kBig).utf8, "p.vhd");
  EXPECT_FALSE(SetParentName(&header, std::string(300, 'x')));
  EXPECT_EQ(DecodeUtf16(header.ParentName(), ByteOrder::kBig).utf8, std::string(255, 'x'));
}

}  // namespace
}  // namespace imgfsck::vhd
