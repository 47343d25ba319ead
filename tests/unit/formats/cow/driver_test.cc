// SPDX-License-Identifier: Apache-2.0
// Every COW layout is told apart, read and written as found; a stop at any write leaves old or new
// sectors; commit moves everything into the base.
#include "formats/cow/driver.h"

#include <gtest/gtest.h>

#include "formats/cow/create.h"
#include "formats/cow/walk.h"
#include "io/fault.h"
#include "tests/unit/formats/cow/fixture.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::cow {
namespace {

// Version 1 exists in both byte orders.
std::vector<std::pair<LayoutId, bool>> AllForms() {
  std::vector<std::pair<LayoutId, bool>> forms;
  for (const Layout& layout : kLayouts) {
    forms.emplace_back(layout.id, false);
    if (layout.host_order()) forms.emplace_back(layout.id, true);
  }
  return forms;
}

std::string NameOf(std::pair<LayoutId, bool> form) {
  return std::string(LayoutOf(form.first).name) + (form.second ? " little" : "");
}

TEST(CowLayouts, EachIsToldFromTheOthers) {
  for (auto form : AllForms()) {
    for (uint64_t size :
         {uint64_t{512}, uint64_t{300 * 512}, uint64_t{3905 * 512}, uint64_t{5 * kMiB}, 5 * kGiB}) {
      if (size > kGiB && !LayoutOf(form.first).qemu) continue;  // their files are that long
      for (std::string path : {"/a", "/images/base.img", "base.img", ""}) {
        Fixture f(form.first, size, form.second);
        f.path = path;
        f.WriteHeader();
        f.SetBit(0);
        Resolution r = ResolveLayout(Bytes(f.bytes).first(std::min<size_t>(4136, f.bytes.size())),
                                     f.bytes.size());
        EXPECT_TRUE(r.clear) << NameOf(form) << " " << size << " '" << path << "' "
                             << r.candidates[0].score << " " << r.candidates[1].score;
        EXPECT_EQ(r.best().spec().name, f.spec().name) << size << " '" << path << "'";
        EXPECT_EQ(r.best().little_endian, form.second);
        EXPECT_EQ(r.best().size, size);
        EXPECT_EQ(r.best().path, path);
        EXPECT_EQ(r.best().mtime, f.mtime);
        EXPECT_EQ(kFormat.probe(MemoryStore(f.bytes)), ProbeScore::kSure);
      }
    }
  }
}

TEST(CowLayouts, EncodingIsTheMirrorOfParsing) {
  for (auto form : AllForms()) {
    Fixture f = Fixture::Sound(form.first, form.second);
    Header h = ParseHeaderAs(form.first, form.second, f.bytes);
    ByteVector copy(f.bytes.begin(), f.bytes.begin() + f.spec().header_length);
    ByteVector again(copy.size());
    EncodeHeader(h, again);
    EXPECT_TRUE(again == copy) << NameOf(form);
  }
}

TEST(CowProbe, OtherFilesAreNotTaken) {
  EXPECT_EQ(kFormat.probe(MemoryStore()), ProbeScore::kNo);
  EXPECT_EQ(kFormat.probe(MemoryStore(ByteVector(8192))), ProbeScore::kNo);
  EXPECT_EQ(kFormat.probe(MemoryStore(Pattern(3, 65536))), ProbeScore::kNo);
  Fixture f = Fixture::Sound(LayoutId::kUml3);
  f.bytes[0] = 0;
  EXPECT_EQ(kFormat.probe(MemoryStore(f.bytes)), ProbeScore::kHeaderDamaged);
}

TEST(CowDriverTest, EveryLayoutIsReadAndWrittenAsFound) {
  ByteVector base = Pattern(7, 300 * 512);
  for (auto form : AllForms()) {
    Fixture f = Fixture::Sound(form.first, form.second);
    ByteVector expected = base;
    for (uint64_t sector : {0u, 1u, 9u, 63u, 64u, 200u, 255u, 290u}) {
      std::fill_n(expected.begin() + static_cast<long>(sector * 512), 512,
                  static_cast<uint8_t>(sector + 1));
    }
    MemoryStore store(f.bytes);
    auto driver = OpenStore(kFormat, store);
    ASSERT_TRUE(driver) << NameOf(form);
    driver->SetBackingReader(ReaderOf(base));
    EXPECT_EQ(driver->Backing()->name, "/images/base.img");
    ASSERT_TRUE(ReadAll(*driver) == expected) << NameOf(form);
    for (uint64_t at : {uint64_t{100}, uint64_t{5 * 512}, uint64_t{62 * 512 + 11},
                        uint64_t{250 * 512}, uint64_t{299 * 512 - 3}}) {
      // The tail without bits of versions 1 and 2 is not written to.
      ByteVector bytes =
          Pattern(at, std::min<uint64_t>(1300, 296 * 512 - std::min(at, uint64_t{296 * 512})));
      ASSERT_TRUE(driver->Write(at, bytes)) << NameOf(form);
      std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<long>(at));
      EXPECT_TRUE(ReadAll(*driver) == expected) << NameOf(form);
    }
    ASSERT_TRUE(driver->Zero(270 * 512, 700));
    std::fill_n(expected.begin() + 270 * 512, 700, uint8_t{0});
    ASSERT_TRUE(driver->Close());
    // Header as it was, bits least significant first, data one to one behind data_offset.
    uint64_t header = f.spec().header_length;
    EXPECT_TRUE(std::equal(f.bytes.begin(), f.bytes.begin() + static_cast<long>(header),
                           store.bytes().begin()));
    Geometry g = f.geometry();
    EXPECT_EQ(store.bytes()[g.bitmap_offset] & 0xE7, 0xE7);
    auto again = OpenStore(kFormat, store);
    again->SetBackingReader(ReaderOf(base));
    EXPECT_TRUE(ReadAll(*again) == expected) << NameOf(form);
  }
}

TEST(CowDriverTest, StatusFollowsTheBits) {
  Fixture f = Fixture::Sound(LayoutId::kUml3);
  MemoryStore store(f.bytes);
  auto driver = OpenStore(kFormat, store);
  std::vector<std::pair<uint64_t, bool>> runs;
  for (uint64_t at = 0; at < driver->VirtualSize();) {
    auto status = driver->StatusAt(at, driver->VirtualSize());
    ASSERT_TRUE(status);
    runs.emplace_back(at / 512, status->state == MappingState::kData);
    at += status->length;
  }
  std::vector<std::pair<uint64_t, bool>> expected{
      {0, true},   {2, false},   {9, true},   {10, false},  {63, true},  {65, false},
      {200, true}, {201, false}, {255, true}, {256, false}, {290, true}, {291, false}};
  EXPECT_EQ(runs, expected);
}

TEST(CowDriverTest, TheForgottenTailIsReadFromTheBaseAndNotWritten) {
  // 3905 sectors: the bitmap's 488 bytes end where the data begins.
  Fixture f(LayoutId::kUml2, 3905 * 512);
  ASSERT_TRUE(f.geometry().tail_is_data());
  ByteVector base = Pattern(3, 3905 * 512);
  f.PutData(0, 0xFF);
  f.SetBit(0);
  f.PutData(3904, 0x99);
  MemoryStore store(f.bytes);
  auto driver = OpenStore(kFormat, store);
  driver->SetBackingReader(ReaderOf(base));
  ByteVector sector(512);
  ASSERT_TRUE(driver->Read(3904 * 512, sector));
  EXPECT_TRUE(std::equal(sector.begin(), sector.end(), base.end() - 512));
  EXPECT_FALSE(driver->Write(3904 * 512, sector));
  EXPECT_TRUE(driver->Write(3903 * 512, sector));
  // Where padding follows the bitmap, the byte there is used.
  Fixture padded(LayoutId::kUml2, 301 * 512);
  ASSERT_TRUE(padded.geometry().tail_has_no_bits());
  ASSERT_FALSE(padded.geometry().tail_is_data());
  padded.Store(300, 0x42);
  MemoryStore second(padded.bytes);
  auto other = OpenStore(kFormat, second);
  ASSERT_TRUE(other->Read(300 * 512, sector));
  EXPECT_EQ(sector[5], 0x42);
}

TEST(CowDriverTest, UnalignedSizesKeepTheirTail) {
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, 2560100, {{"backing_file", "/b"}, {"backing_mtime", "5"}}));
  EXPECT_EQ(store.Size(), 2572388u);
  ByteVector base = Pattern(4, 2560100);
  auto driver = OpenStore(kFormat, store);
  driver->SetBackingReader(ReaderOf(base));
  EXPECT_EQ(driver->VirtualSize(), 2560100u);
  ByteVector tail(100, 0xEE);
  ASSERT_TRUE(driver->Write(2560000, tail));
  ASSERT_TRUE(driver->Write(2559990, ByteVector(5, 0x11)));
  std::copy(tail.begin(), tail.end(), base.begin() + 2560000);
  std::fill_n(base.begin() + 2559990, 5, uint8_t{0x11});
  EXPECT_TRUE(ReadAll(*driver) == base);
  ASSERT_TRUE(driver->Close());
  EXPECT_LE(store.Size(), 2572388u + 412);
}

TEST(CowDriverTest, CreatesWhatReadersExpect) {
  MemoryStore qemu;
  ASSERT_TRUE(kFormat.create(qemu, 100 * 512, {{"layout", "qemu-x86-64"}, {"backing_file", "b"}}));
  EXPECT_EQ(qemu.Size(), 1056u + 13);
  EXPECT_EQ(BeAt<uint64_t>(qemu.bytes(), 1040), 100u * 512);
  EXPECT_EQ(BeAt<uint32_t>(qemu.bytes(), 1048), 512u);
  EXPECT_EQ(AsText(Bytes(qemu.bytes()).subspan(8, 1)), "b");
  MemoryStore store;
  EXPECT_FALSE(kFormat.create(store, 0, {}));
  EXPECT_FALSE(kFormat.create(store, kMiB, {{"layout", "uml-v2"}}));
  EXPECT_FALSE(kFormat.create(store, kMiB, {{"backing_file", std::string(4096, 'x')}}));
  EXPECT_FALSE(kFormat.create(store, uint64_t{1} << 45, {}));  // data would begin too far
}

TEST(CowDriverTest, RefusesWhatItCouldMisread) {
  auto refused = [](Fixture f, auto change) {
    change(f);
    MemoryStore store(f.bytes);
    return !kFormat.open(store, nullptr, {});
  };
  Fixture v3 = Fixture::Sound(LayoutId::kUml3);
  EXPECT_FALSE(refused(v3, [](Fixture&) {}));
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes[1] = 0; }));
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes[7] = 4; }));
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes[22] = 3; }));  // sector size
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes[26] = 0; }));  // alignment
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes[31] = 1; }));  // bitmap format
  EXPECT_TRUE(
      refused(v3, [](Fixture& f) { std::fill_n(f.bytes.begin() + 32, 4096, uint8_t{'x'}); }));
  EXPECT_TRUE(refused(v3, [](Fixture& f) { f.bytes.resize(8192 + 5); }));
}

TEST(CowDriverTest, SectorsBeyondTheEndAreAnError) {
  Fixture f = Fixture::Sound(LayoutId::kQemu64);
  f.SetBit(295);
  MemoryStore store(f.bytes);
  auto driver = OpenStore(kFormat, store);
  ByteVector sector(512);
  auto status = driver->Read(295 * 512, sector);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().offset, 295u * 512);
  EXPECT_TRUE(driver->Read(290 * 512, sector));
}

TEST(CowDriverTest, SetBackingKeepsTheLayout) {
  for (auto form : AllForms()) {
    Fixture f = Fixture::Sound(form.first, form.second);
    MemoryStore store(f.bytes);
    auto driver = OpenStore(kFormat, store);
    ASSERT_TRUE(driver->SetBacking(BackingReference{"/other", ""}));
    auto again = OpenStore(kFormat, store);
    ASSERT_TRUE(again) << NameOf(form);
    EXPECT_EQ(again->Backing()->name, "/other");
    EXPECT_EQ(store.Size(), f.bytes.size());
  }
}

TEST(CowDriverTest, SurvivesAStopAtAnyWrite) {
  const uint64_t size = 300 * 512;
  ByteVector base = Pattern(1, size);
  for (LayoutId id : {LayoutId::kUml3, LayoutId::kQemu64, LayoutId::kUml1}) {
    Fixture f = Fixture::Sound(id);
    MemoryStore whole(f.bytes);
    auto first = OpenStore(kFormat, whole);
    first->SetBackingReader(ReaderOf(base));
    const ByteVector old = ReadAll(*first);
    for (auto unsynced :
         {FaultPlan::Unsynced::kKeep, FaultPlan::Unsynced::kLose, FaultPlan::Unsynced::kScramble}) {
      bool fired = true;
      for (uint64_t stop = 1; fired; ++stop) {
        ASSERT_LT(stop, 100u);
        FaultStore faulty(f.bytes, {FaultPlan::Kind::kCrash, stop, unsynced, stop});
        auto driver = OpenStore(kFormat, faulty);
        driver->SetBackingReader(ReaderOf(base));
        ByteVector expected = old;
        bool flushed = true;
        for (uint64_t at : {uint64_t{3 * 512}, uint64_t{120 * 512 + 7}, uint64_t{64 * 512}}) {
          ByteVector bytes = Pattern(at + 5, 1400);
          std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<long>(at));
          flushed = flushed && driver->Write(at, bytes);
          if (at == 3 * 512) flushed = flushed && driver->Flush();
        }
        flushed = flushed && driver->Flush();
        fired = faulty.Fired();
        MemoryStore survivor(faulty.Survivor());
        auto reader = OpenStore(kFormat, survivor);
        ASSERT_TRUE(reader) << "stop " << stop;
        reader->SetBackingReader(ReaderOf(base));
        ByteVector found = ReadAll(*reader);
        if (flushed) {
          EXPECT_TRUE(found == expected) << "stop " << stop;
        }
        for (uint64_t at = 0; at < size; ++at) {
          ASSERT_TRUE(found[at] == old[at] || found[at] == expected[at])
              << LayoutOf(id).name << " stop " << stop << " byte " << at;
        }
      }
    }
  }
}

// What a commit does once the base holds everything.
TEST(CowDriverTest, EmptyingSurvivesAStopAndRestamps) {
  Fixture f = Fixture::Sound(LayoutId::kUml3);
  f.Store(20, 0);
  MemoryStore original(f.bytes);
  ByteVector base = Pattern(1, 300 * 512);
  auto reader = OpenStore(kFormat, original);
  reader->SetBackingReader(ReaderOf(base));
  const ByteVector merged = ReadAll(*reader);
  bool fired = true;
  for (uint64_t stop = 1; fired; ++stop) {
    ASSERT_LT(stop, 100u);
    FaultStore image(f.bytes,
                     {FaultPlan::Kind::kCrash, stop, FaultPlan::Unsynced::kScramble, stop});
    auto driver = OpenStore(kFormat, image);
    bool done = driver->Empty() && driver->SetBacking(BackingReference{"/base", "", 1234567});
    fired = image.Fired();
    EXPECT_EQ(done, !fired);
    MemoryStore survivor(image.Survivor());
    auto left = OpenStore(kFormat, survivor);
    ASSERT_TRUE(left);
    left->SetBackingReader(ReaderOf(merged));
    EXPECT_TRUE(ReadAll(*left) == merged) << "stop " << stop;
    if (!done) continue;
    auto status = left->StatusAt(0, 300 * 512);
    ASSERT_TRUE(status);
    EXPECT_EQ(status->length, 300u * 512);
    EXPECT_EQ(status->state, MappingState::kUnallocated);
    EXPECT_EQ(ParseHeaderAs(LayoutId::kUml3, false, survivor.bytes()).mtime, 1234567u);
  }
}

TEST(CowRows, MappingsAreCompleteAndMerged) {
  Fixture f = Fixture::Sound(LayoutId::kUml3);
  f.SetBit(299);
  f.bytes.resize(f.bytes.size() - 512);  // the last one is not there
  MemoryStore store(f.bytes);
  auto rows = kFormat.inspect(store, "x");
  ASSERT_TRUE(rows);
  auto cursor = (*rows)->Mappings({});
  std::vector<MappingRow> all, batch;
  do {
    ASSERT_TRUE(cursor->NextBatch(&batch));
    all.insert(all.end(), batch.begin(), batch.end());
  } while (!batch.empty());
  uint64_t at = 0;
  for (const MappingRow& row : all) {
    EXPECT_EQ(row.guest_offset, at);
    at += row.length;
  }
  EXPECT_EQ(at, 300u * 512);
  EXPECT_EQ(all.size(), 13u);
  EXPECT_EQ(all.back().flags, kMappingPastEnd);
  EXPECT_EQ((*rows)->Image().version, "3");
  EXPECT_EQ((*rows)->Links().at(0).name, "/images/base.img");
  EXPECT_EQ((*rows)->Fields().size(), 8u);
}

}  // namespace
}  // namespace imgfsck::cow
