// SPDX-License-Identifier: Apache-2.0
// Small VHDs in memory for the tests.
#pragma once

#include <gtest/gtest.h>

#include "formats/vhd/bat.h"
#include "formats/vhd/create.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/format.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::vhd {

inline constexpr uint64_t kTestBlock = 64 * kKiB;

// Reproducible: fixed id and time.
inline CreateOptions TestOptions(CreateOptions more = {}) {
  more.try_emplace("uuid", "00112233445566778899aabbccddeeff");
  more.try_emplace("timestamp", "1000000000");
  more.try_emplace("force_size", "on");
  bool fixed = more.contains("subformat") && more["subformat"] == "fixed";
  if (!fixed) more.try_emplace("block_size", "64K");
  return more;
}

inline void MakeVhd(ByteStore& store, uint64_t size, CreateOptions more = {}) {
  Status made = Create(store, size, TestOptions(std::move(more)));
  ASSERT_TRUE(made) << (made ? "" : made.error().message);
}

inline CreateOptions ChildOptions() {
  return {{"backing_file", "p.vhd"}, {"parent_uuid", "0102030405060708090a0b0c0d0e0f10"}};
}

inline std::unique_ptr<Image> Parsed(const ByteSource& source) {
  auto image = ParseImage(source, {});
  EXPECT_TRUE(image);
  return std::move(*image);
}

// The table's entry for block `index`, read and changed straight in the bytes.
inline uint32_t Entry(const MemoryStore& store, uint64_t index) {
  return BeAt<uint32_t>(store.bytes(), kDefaultTableOffset + index * 4);
}
inline void SetEntry(MemoryStore& store, uint64_t index, uint32_t sector) {
  PutBe<uint32_t>(store.bytes(), kDefaultTableOffset + index * 4, sector);
}

// Changes both footers, or one, and makes their checksums right again.
enum class Which { kBoth, kTrailing, kLeading };
template <class Edit>
void EditFooter(MemoryStore& store, const Edit& edit, Which which = Which::kBoth) {
  for (uint64_t at : {uint64_t{0}, store.Size() - kFooterSize}) {
    if (which == (at == 0 ? Which::kTrailing : Which::kLeading)) continue;
    Footer footer = ParseFooter(Bytes(store.bytes()).subspan(at, kFooterSize));
    if (!footer.HasCookie()) continue;  // the first sector of a fixed disk
    edit(footer);
    std::ranges::copy(Seal(&footer), store.bytes().begin() + static_cast<ptrdiff_t>(at));
  }
}
template <class Edit>
void EditHeader(MemoryStore& store, const Edit& edit) {
  DynHeader header = ParseHeader(Bytes(store.bytes()).subspan(kFooterSize, kHeaderSize));
  edit(header);
  std::ranges::copy(Seal(&header), store.bytes().begin() + kFooterSize);
}

// A dynamic disk of ten blocks and a half, five of them stored, in another order than the guest's.
inline constexpr uint64_t kSoundBlock = 512 * kKiB;
inline constexpr uint64_t kSoundSize = 10 * kSoundBlock + kSoundBlock / 2;
inline void WriteSoundBlocks(MemoryStore& store) {
  auto driver = OpenStore(kFormat, store);
  ASSERT_TRUE(driver);
  for (uint64_t block : {6u, 1u, 10u, 0u, 4u}) {
    ASSERT_TRUE(driver->Write(block * kSoundBlock, Pattern(block, kSoundBlock / 2)));
  }
  ASSERT_TRUE(driver->Close());
}
inline MemoryStore SoundDynamic() {
  MemoryStore store;
  MakeVhd(store, kSoundSize, {{"block_size", "512K"}});
  WriteSoundBlocks(store);
  return store;
}
inline MemoryStore SoundFixed() {
  MemoryStore store;
  MakeVhd(store, kMiB, {{"subformat", "fixed"}});
  auto driver = OpenStore(kFormat, store);
  EXPECT_TRUE(driver->Write(0, Pattern(1, kMiB)));
  return store;
}
inline MemoryStore SoundChild() {
  MemoryStore store;
  CreateOptions options = ChildOptions();
  options["block_size"] = "512K";
  MakeVhd(store, kSoundSize, options);
  WriteSoundBlocks(store);
  return store;
}
// As XenServer writes them: a batmap behind the table. Blocks 1 and 6 are full and marked so.
inline constexpr uint64_t kTapMap = kDefaultTableOffset + 512 + kBatmapHeaderSize;
inline MemoryStore SoundTap() {
  MemoryStore store;
  MakeVhd(store, kSoundSize, {{"block_size", "512K"}});
  EditFooter(store, [](Footer& f) {
    f.creator_app = kCreatorTap;
    f.creator_version = 0x00010003;
  });
  ByteVector footer(store.bytes().begin(), store.bytes().begin() + 512);
  BatmapHeader batmap;
  batmap.offset = kTapMap;
  batmap.sectors = 1;
  batmap.version = kBatmapVersion;
  ByteVector map(512);
  SetBit(map, 1, true);
  SetBit(map, 6, true);
  batmap.checksum = MapChecksum(map, batmap.version);
  EXPECT_TRUE(store.WriteAt(kTapMap - 512, Seal(&batmap)));
  EXPECT_TRUE(store.WriteAt(kTapMap, map));
  EXPECT_TRUE(store.WriteAt(kTapMap + 512, footer));
  // The map is true from the start only because the next writes make it so.
  WriteSoundBlocks(store);
  return store;
}

}  // namespace imgfsck::vhd
