// SPDX-License-Identifier: Apache-2.0
// Stops the qcow version 1 driver at every write.
#include <gtest/gtest.h>

#include <algorithm>

#include "formats/qcow1/driver.h"
#include "io/fault.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::qcow1 {
namespace {

// Writes over an image with old contents, stops at every write in turn, and looks at what a reader
// then finds: sector by sector the old or the new bytes; all new once a flush has succeeded.
TEST(Qcow1Driver, SurvivesAStopAtAnyWrite) {
  const uint64_t size = 96 * kKiB;
  ByteVector base = Pattern(1, size);
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, size,
                             {{"backing_file", "b"}, {"cluster_bits", "10"}, {"l2_bits", "6"}}));
  {
    auto driver = OpenStore(kFormat, store);
    driver->SetBackingReader(ReaderOf(base));
    ByteVector flat(2048, 0x31);
    ASSERT_TRUE(driver->WriteCompressed(4096, flat));
    ASSERT_TRUE(driver->Write(70000, Pattern(2, 3000)));
    ASSERT_TRUE(driver->Close());
  }
  auto first = OpenStore(kFormat, store);
  first->SetBackingReader(ReaderOf(base));
  const ByteVector old = ReadAll(*first);
  ByteVector expected = old;
  for (auto unsynced :
       {FaultPlan::Unsynced::kKeep, FaultPlan::Unsynced::kLose, FaultPlan::Unsynced::kScramble}) {
    bool fired = true;
    for (uint64_t stop = 1; fired; ++stop) {
      FaultStore faulty(store.bytes(), {FaultPlan::Kind::kCrash, stop, unsynced, stop});
      auto driver = OpenStore(kFormat, faulty);
      driver->SetBackingReader(ReaderOf(base));
      expected = old;
      bool flushed = true;
      for (uint64_t at : {uint64_t{0}, uint64_t{4200}, uint64_t{66000}, uint64_t{71000}}) {
        ByteVector bytes = Pattern(at + 3, 1536);
        std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<long>(at));
        flushed = flushed && driver->Write(at, bytes);
        if (at == 4200) flushed = flushed && driver->Flush();
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
            << "stop " << stop << " byte " << at;
      }
    }
  }
}

// What a commit does once the base holds everything.
TEST(Qcow1Driver, EmptyingSurvivesAStop) {
  ByteVector base = Pattern(1, 96 * kKiB);
  MemoryStore store;
  ASSERT_TRUE(kFormat.create(store, base.size(),
                             {{"backing_file", "b"}, {"cluster_bits", "10"}, {"l2_bits", "6"}}));
  auto driver = OpenStore(kFormat, store);
  driver->SetBackingReader(ReaderOf(base));
  ASSERT_TRUE(driver->Write(3000, Pattern(9, 20000)));
  ASSERT_TRUE(driver->SetBacking(BackingReference{"a name behind the table", "", 99}));
  ASSERT_TRUE(driver->Close());
  const ByteVector merged = ReadAll(*driver);
  EXPECT_EQ(ParseHeader(store.bytes()).mtime, 0u);
  bool fired = true;
  for (uint64_t stop = 1; fired; ++stop) {
    ASSERT_LT(stop, 100u);
    FaultStore image(store.bytes(),
                     {FaultPlan::Kind::kCrash, stop, FaultPlan::Unsynced::kScramble, stop});
    bool done = OpenStore(kFormat, image)->Empty().has_value();
    fired = image.Fired();
    EXPECT_EQ(done, !fired);
    MemoryStore survivor(image.Survivor());
    auto left = OpenStore(kFormat, survivor);
    ASSERT_TRUE(left);
    left->SetBackingReader(ReaderOf(merged));
    EXPECT_TRUE(ReadAll(*left) == merged) << "stop " << stop;
    EXPECT_EQ(left->Backing()->name, "a name behind the table");
    if (!done) continue;
    EXPECT_LT(survivor.Size(), 1000000u);
    EXPECT_EQ(left->StatusAt(0, base.size())->length, base.size());
  }
}

}  // namespace
}  // namespace imgfsck::qcow1
