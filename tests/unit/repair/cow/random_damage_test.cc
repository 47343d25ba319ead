// SPDX-License-Identifier: Apache-2.0
// COW images of every layout with random damage: 100 of them, 1000 in a long run.
#include "tests/unit/repair/random_damage.h"

#include <random>

#include "formats/cow/driver.h"
#include "tests/unit/formats/cow/fixture.h"
#include "tests/unit/formats/driver_helpers.h"

namespace imgfsck::cow {
namespace {

// Header, bitmap and data of the layout that the header shows must not meet; every sector has a
// place of its own.
std::string OwnedTwice(const ByteVector& bytes) {
  auto image = ParseImage(MemoryStore(bytes));
  if (!image || !(*image)->walkable) return "";
  const Geometry& g = (*image)->geometry;
  bool apart = (*image)->header.spec().header_length <= g.bitmap_offset &&
               g.bitmap_offset + DivRoundUp(g.sectors, 8) <= g.data_offset;
  return apart || g.tail_has_no_bits() ? "" : "the bitmap lies over the data";
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed), base_(Pattern(seed, 300 * kKiB)) {}

  Trial Make() {
    const Layout& layout = kLayouts[Below(std::size(kLayouts))];
    Fixture f(layout.id, 512 * (1 + Below(500)), layout.host_order() && Below(2) == 0);
    uint64_t sectors = std::max<uint64_t>(1, f.geometry().tracked_sectors());
    Trial trial;
    for (uint64_t i = Below(60); i > 0; --i) {
      uint64_t sector = Below(sectors);
      if (sector >= f.geometry().tracked_sectors()) continue;
      f.Store(sector, static_cast<uint8_t>(i));
      for (uint64_t at = 0; at < 512; at += 2) {
        f.bytes[f.geometry().HostOf(sector) + at] = static_cast<uint8_t>(random_());
      }
      trial.stored.push_back(MakeHostRange(f.geometry().HostOf(sector), 512));
    }
    trial.owned_twice = OwnedTwice;
    trial.sound = f.bytes;
    for (uint64_t wounds = 1 + Below(3); wounds > 0; --wounds) Hurt(&f);
    trial.damaged = f.bytes;
    trial.backing = ReaderOf(base_);
    // A header with several wounds, and one that is cut off, may be past help.
    trial.hopeless = {Problem::kCowMagic,           Problem::kCowVersion,
                      Problem::kCowHeaderTruncated, Problem::kCowLayoutAmbiguous,
                      Problem::kCowSectorsize,      Problem::kCowAlignment,
                      Problem::kCowSizeOverflow,    Problem::kCowEndian,
                      Problem::kCowEmptyFile,       Problem::kCowPathUnterminated,
                      Problem::kCowFormatField,     Problem::kCowHeaderUpgradedInPlace};
    return trial;
  }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  void Hurt(Fixture* f) {
    uint64_t length = std::min<uint64_t>(f->spec().header_length, f->bytes.size());
    switch (Below(6)) {
      case 0:
        f->bytes[Below(length)] = static_cast<uint8_t>(Below(256));
        return;
      case 1:
        f->bytes[Below(std::min<uint64_t>(48, length))] = static_cast<uint8_t>(Below(256));
        return;
      case 2: {
        uint64_t at = f->geometry().bitmap_offset + Below(f->geometry().bitmap_bytes + 1);
        if (at < f->bytes.size()) f->bytes[at] = static_cast<uint8_t>(Below(256));
        return;
      }
      case 3:
        f->bytes.resize(Below(f->bytes.size() - 8) + 8);
        return;
      case 4:
        f->bytes.resize(f->bytes.size() + Below(4000), static_cast<uint8_t>(Below(256)));
        return;
      default: {
        uint64_t at = Below(f->bytes.size());
        uint64_t end = std::min<uint64_t>(at + Below(600), f->bytes.size());
        for (; at < end; ++at) f->bytes[at] = static_cast<uint8_t>(random_());
      }
    }
  }

  std::mt19937_64 random_;
  ByteVector base_;
};

TEST(CowRandomDamage, ChecksAndRepairsKeepTheirPromises) {
  ForEachSeed([](uint64_t seed) {
    TryImage(kFormat, Generator(seed).Make(), "seed " + std::to_string(seed));
  });
}

}  // namespace
}  // namespace imgfsck::cow
