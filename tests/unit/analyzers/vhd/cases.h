// SPDX-License-Identifier: Apache-2.0
// One damage for every rule of the sheet's catalogue, and what it has to be found as.
#pragma once

#include <functional>

#include "tests/unit/analyzers/vhd/check_helpers.h"

namespace imgfsck::vhd {

struct Case {
  std::string name;
  MemoryStore (*make)();
  std::function<void(MemoryStore&)> damage;
  Problem problem;
  Severity severity;
};

inline void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

inline void Put32(MemoryStore& m, uint64_t at, uint32_t value) {
  PutBe<uint32_t>(m.bytes(), at, value);
}
inline uint64_t End(const MemoryStore& m) { return m.Size() - kFooterSize; }
inline uint64_t BlockAt(const MemoryStore& m, uint64_t index) {
  return Entry(m, index) * kSectorSize;
}

// Moves the footer so that `bytes` more lie before it.
inline void MakeRoom(MemoryStore& m, uint64_t bytes) {
  ByteVector footer(m.bytes().end() - 512, m.bytes().end());
  m.bytes().resize(m.bytes().size() - 512 + bytes);
  m.bytes().insert(m.bytes().end(), footer.begin(), footer.end());
}

using enum Problem;
using enum Severity;

inline std::vector<Case> FooterCases() {
  return {
      {"r01", SoundFixed, [](auto& m) { m.bytes().resize(500); }, kVhdFileTooSmall, kCorruption},
      {"r02", SoundDynamic, [](auto& m) { m.bytes().resize(End(m)); }, kVhdFooterMissing,
       kCorruption},
      {"r02_cookie", SoundFixed, [](auto& m) { m.bytes()[End(m)] = 0; }, kVhdFooterMissing,
       kCorruption},
      {"r03", SoundDynamic,
       [](auto& m) { std::fill(m.bytes().end() - 512, m.bytes().end(), 0xC7); }, kVhdFooterKilled,
       kWarning},
      {"r04", SoundDynamic,
       [](auto& m) { std::ranges::copy(kPoisonCookie, m.bytes().end() - 512); }, kVhdFooterPoisoned,
       kCorruption},
      {"r05", SoundDynamic, [](auto& m) { m.bytes()[End(m) + 30] ^= 4; }, kVhdFooterChecksum,
       kCorruption},
      {"r06", SoundDynamic, [](auto& m) { Put32(m, End(m) + footer_at::kChecksum, 0); },
       kVhdFooterChecksumZero, kCorruption},
      {"r07", SoundDynamic, [](auto& m) { std::fill_n(m.bytes().begin(), 512, 0); },
       kVhdFooterCopyMissing, kCorruption},
      {"r08", SoundDynamic, [](auto& m) { m.bytes()[30] ^= 4; }, kVhdFooterCopyChecksum,
       kCorruption},
      {"r09_light", SoundDynamic,
       [](auto& m) {
         EditFooter(
             m, [](Footer& f) { ++f.timestamp; }, Which::kLeading);
       },
       kVhdFooterCopyMismatch, kWarning},
      {"r09_grave", SoundDynamic,
       [](auto& m) {
         EditFooter(
             m, [](Footer& f) { f.current_size -= 512; }, Which::kLeading);
       },
       kVhdFooterCopyMismatch, kCorruption},
      {"r10", SoundFixed, [](auto& m) { m.bytes().pop_back(); }, kVhdFooter511, kInfo},
      {"r11", SoundDynamic, [](auto& m) { m.bytes().resize(m.Size() + 7); },
       kVhdFileLengthUnaligned, kWarning},
      {"r12", SoundFixed, [](auto& m) { m.bytes().resize(m.Size() + 5 * 512); }, kVhdFooterNotAtEof,
       kWarning},
      {"r13", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.version = 0x20000; }); },
       kVhdFooterVersion, kCorruption},
      {"r14", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.features = 6; }); },
       kVhdFooterFeatures, kWarning},
      {"r15", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.features = 3; }); },
       kVhdTemporary, kInfo},
      {"r16", SoundDynamic, [](auto& m) { EditFooter(m, [](Footer& f) { f.disk_type = 9; }); },
       kVhdTypeInvalid, kCorruption},
      {"r17_fixed", SoundDynamic,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.disk_type = 2; }); }, kVhdTypePlacement,
       kCorruption},
      {"r17_dynamic", SoundFixed,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.disk_type = 3; }); }, kVhdTypePlacement,
       kCorruption},
      {"r18", SoundFixed,
       [](auto& m) {
         std::ranges::copy(Bytes(SoundDynamic().bytes()).first(2048), m.bytes().begin());
       },
       kVhdFixedSpoofedHeader, kWarning},
      {"r19", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.data_offset = 700; }); },
       kVhdFixedDataOffset, kInfo},
      {"r20_short", SoundFixed,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.current_size += 512; }); }, kVhdFixedSize,
       kCorruption},
      {"r20_long", SoundFixed,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.current_size -= 512; }); }, kVhdFixedSize,
       kCorruption},
      {"r21", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.raw[300] = 1; }); },
       kVhdFooterReserved, kWarning},
      {"r22", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.unique_id = {}; }); },
       kVhdUuidNull, kWarning},
      {"r23", SoundFixed,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.timestamp = 0xFFFFFFF0; }); },
       kVhdTimestampFuture, kInfo},
      {"r24", SoundFixed, [](auto& m) { EditFooter(m, [](Footer& f) { f.saved_state = 1; }); },
       kVhdSavedState, kWarning},
      {"r25", SoundDynamic, [](auto& m) { EditFooter(m, [](Footer& f) { f.current_size = 0; }); },
       kVhdSizeZero, kInfo},
      {"r26", SoundDynamic, [](auto& m) { EditFooter(m, [](Footer& f) { f.current_size -= 7; }); },
       kVhdSizeUnaligned, kWarning},
      {"r27", SoundDynamic,
       [](auto& m) {
         EditFooter(m, [](Footer& f) { f.current_size = (kMaxSectors + 1) * kSectorSize; });
       },
       kVhdSizeLimit, kCorruption},
      {"r28", SoundDynamic,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.original_size = 512; }); }, kVhdOriginalSize,
       kInfo},
      {"r29", SoundDynamic,
       [](auto& m) { EditFooter(m, [](Footer& f) {
                       f.geometry = {2, 4, 17};
                     }); },
       kVhdGeometryMismatch, kWarning},
      {"r30", SoundFixed,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.geometry = GeometryFor(2108); }); },
       kVhdGeometryExceedsSize, kCorruption},
      {"r31", SoundDynamic,
       [](auto& m) {
         EditFooter(m, [](Footer& f) {
           f.creator_app = FourCc("abcd");
           f.geometry = GeometryFor(f.current_size / 512);
         });
       },
       kVhdSizePolicyAmbiguous, kWarning},
  };
}

inline std::vector<Case> HeaderCases() {
  return {
      {"r32", SoundDynamic,
       [](auto& m) {
         EditFooter(
             m, [](Footer& f) { f.data_offset = 513; }, Which::kTrailing);
       },
       kVhdDynHeaderOffset, kCorruption},
      {"r33", SoundDynamic, [](auto& m) { std::fill_n(m.bytes().begin() + 512, 1024, 0); },
       kVhdDynHeaderCookie, kCorruption},
      {"r33_cookie", SoundDynamic, [](auto& m) { m.bytes()[513] = 0; }, kVhdDynHeaderCookie,
       kCorruption},
      {"r34", SoundDynamic, [](auto& m) { m.bytes()[512 + 900] ^= 1; }, kVhdDynHeaderChecksum,
       kCorruption},
      {"r35", SoundDynamic, [](auto& m) { EditHeader(m, [](DynHeader& h) { h.version = 2; }); },
       kVhdDynHeaderVersion, kCorruption},
      {"r36", SoundDynamic, [](auto& m) { EditHeader(m, [](DynHeader& h) { h.next_offset = 0; }); },
       kVhdDynHeaderNext, kInfo},
      {"r37", SoundDynamic, [](auto& m) { EditHeader(m, [](DynHeader& h) { h.raw[800] = 1; }); },
       kVhdDynHeaderReserved, kWarning},
      {"r38", SoundChild,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.locators[0].data_offset = 1536; }); },
       kVhdDynMetadataOverlap, kCorruption},
      {"r39", SoundDynamic,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.block_size = 12345; }); }, kVhdDynBlockSize,
       kCorruption},
      {"r39_untested",
       [] {
         MemoryStore m;
         MakeVhd(m, kMiB);
         return m;
       },
       [](auto&) {}, kVhdDynBlockSize, kWarning},
      {"r40", SoundDynamic,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.max_entries = 10; }); },
       kVhdDynMaxEntriesSmall, kCorruption},
      {"r41", SoundDynamic,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.max_entries = 60; }); },
       kVhdDynMaxEntriesExcess, kInfo},
      {"r42", SoundDynamic,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.parent_id[3] = 3; }); },
       kVhdDynParentFieldsSet, kWarning},
      {"r43", SoundDynamic,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { h.table_offset = 1537; }); }, kVhdBatOffset,
       kCorruption},
      {"r44",
       [] {
         MemoryStore m;
         MakeVhd(m, 200 * kMiB);
         return m;
       },
       [](auto& m) { m.bytes().resize(10'000); }, kVhdBatTruncated, kCorruption},
  };
}

inline std::vector<Case> TableCases() {
  return {
      {"r45", SoundDynamic, [](auto& m) { SetEntry(m, 2, 3); }, kVhdBatEntryInMetadata,
       kCorruption},
      {"r45_zero", SoundDynamic, [](auto& m) { SetEntry(m, 2, 0); }, kVhdBatEntryInMetadata,
       kCorruption},
      {"r46", SoundDynamic, [](auto& m) { SetEntry(m, 2, 0x7FFFFFFF); }, kVhdBatEntryPastEof,
       kCorruption},
      {"r47", SoundDynamic, [](auto& m) { m.bytes().resize(m.Size() - 5000); },
       kVhdBatEntryTailTruncated, kCorruption},
      {"r48", SoundDynamic,
       [](auto& m) {
         ByteVector footer(m.bytes().end() - 512, m.bytes().end());
         m.bytes().resize(End(m));
         std::ranges::copy(footer, m.bytes().end() - 512);
       },
       kVhdBatEntryOverlapsFooter, kCorruption},
      {"r49", SoundDynamic, [](auto& m) { SetEntry(m, 2, Entry(m, 1)); }, kVhdBatEntryDuplicate,
       kCorruption},
      {"r50", SoundDynamic, [](auto& m) { SetEntry(m, 2, Entry(m, 1) + 8); }, kVhdBatEntryOverlap,
       kCorruption},
      {"r51", SoundDynamic,
       [](auto& m) { EditFooter(m, [](Footer& f) { f.current_size -= kSoundBlock; }); },
       kVhdBatEntryBeyondSize, kWarning},
      {"r53", SoundDynamic, [](auto& m) { SetEntry(m, 4, kUnallocated); }, kVhdBatLeakedSpace,
       kLeak},
      {"r53_tail", SoundDynamic, [](auto& m) { MakeRoom(m, 5000 - 5000 % 512 + 512); },
       kVhdBatLeakedSpace, kLeak},
      {"r54", SoundDynamic, [](auto&) {}, kVhdBatNot4kAligned, kInfo},
      {"r52", SoundDynamic, [](auto& m) { m.bytes()[BlockAt(m, 10) + 127] = 1; },
       kVhdBitmapBitsPastSize, kInfo},
      {"r55", SoundDynamic, [](auto& m) { m.bytes()[BlockAt(m, 1)] = 0xFB; },
       kVhdBitmapClearSectorNonzero, kCorruption},
      {"r56", SoundChild,
       [](auto& m) {
         std::fill_n(m.bytes().begin() + static_cast<ptrdiff_t>(BlockAt(m, 1)), 512, 0);
       },
       kVhdBitmapEmptyBlock, kInfo},
      {"r57", SoundChild,
       [](auto& m) {
         auto at = m.bytes().begin() + static_cast<ptrdiff_t>(BlockAt(m, 1));
         std::fill_n(at, 128, 0xFF);
         std::fill_n(at + 512, kSoundBlock, 0);
       },
       kVhdBitmapAllOnesDiff, kWarning},
      {"r58", SoundDynamic,
       [](auto& m) {
         std::copy_n(m.bytes().begin(), 512,
                     m.bytes().begin() + static_cast<ptrdiff_t>(BlockAt(m, 1) + 512 * 30));
       },
       kVhdBitmapStaleFooter, kWarning},
      {"r59", SoundDynamic, [](auto& m) { m.bytes()[BlockAt(m, 1) + 130] = 1; }, kVhdBitmapPadding,
       kInfo},
  };
}

inline std::vector<Case> BatmapAndParentCases() {
  constexpr uint64_t kMapHeader = kTapMap - 512;
  auto locator = [](auto edit) {
    return [edit](MemoryStore& m) { EditHeader(m, [&](DynHeader& h) { edit(h.locators); }); };
  };
  return {
      {"r60", SoundTap, [](auto& m) { m.bytes()[kMapHeader] = 0; }, kVhdBatmapMissing, kWarning},
      {"r61", SoundTap, [](auto& m) { Put32(m, kMapHeader + batmap_at::kVersion, 0x10009); },
       kVhdBatmapVersion, kWarning},
      {"r62", SoundTap, [](auto& m) { Put32(m, kMapHeader + batmap_at::kSectors, 0xFFFFFF); },
       kVhdBatmapRange, kCorruption},
      {"r63", SoundTap, [](auto& m) { Put32(m, kMapHeader + batmap_at::kChecksum, 3); },
       kVhdBatmapChecksum, kWarning},
      {"r64", SoundTap, [](auto& m) { m.bytes()[kTapMap] |= 0x20; }, kVhdBatmapFullUnallocated,
       kCorruption},
      {"r65", SoundTap, [](auto& m) { m.bytes()[BlockAt(m, 6) + 9] = 0; },
       kVhdBatmapFullBitmapPartial, kCorruption},
      {"r66", SoundTap, [](auto& m) { m.bytes()[kMapHeader + batmap_at::kKeyFlag] = 1; },
       kVhdBatmapEncrypted, kInfo},
      {"r67", SoundChild, locator([](auto& l) { l[0].code = 0x4D163258; }), kVhdLocatorCodeUnknown,
       kWarning},
      {"r68", SoundChild, locator([](auto& l) { l[2].code = l[1].code; }), kVhdLocatorDuplicate,
       kWarning},
      {"r69", SoundChild, locator([](auto& l) { l[1].data_space = 513; }), kVhdLocatorSpace,
       kWarning},
      {"r70", SoundChild, locator([](auto& l) { l[1].data_offset = uint64_t{1} << 60; }),
       kVhdLocatorRange, kCorruption},
      {"r71", SoundChild, locator([](auto& l) { l[5].data_space = 1; }), kVhdLocatorNonzeroNone,
       kInfo},
      {"r72", SoundChild, locator([](auto& l) { l[1].data_length = 9; }), kVhdLocatorUndecodable,
       kWarning},
      {"r73", SoundChild,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { SetParentName(&h, "other.vhd"); }); },
       kVhdLocatorNameMismatch, kWarning},
      {"r74", SoundChild,
       [](auto& m) { EditHeader(m, [](DynHeader& h) { SetParentName(&h, ""); }); }, kVhdParentName,
       kWarning},
      {"r77", SoundChild, [](auto& m) { EditHeader(m, [](DynHeader& h) { h.parent_id = {}; }); },
       kVhdParentUuidNull, kWarning},
  };
}

inline std::vector<Case> AllCases() {
  std::vector<Case> all;
  for (auto& cases : {FooterCases(), HeaderCases(), TableCases(), BatmapAndParentCases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

inline std::string NameOf(const testing::TestParamInfo<Case>& shape) { return shape.param.name; }

}  // namespace imgfsck::vhd
