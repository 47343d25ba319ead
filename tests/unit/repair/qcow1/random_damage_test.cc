// SPDX-License-Identifier: Apache-2.0
// Version 1 images of random shapes with random damage: 100 of them, 1000 in a long run.
#include "tests/unit/repair/random_damage.h"

#include <random>

#include "formats/common/legacy_aes.h"
#include "formats/qcow1/driver.h"
#include "tests/unit/formats/driver_helpers.h"
#include "tests/unit/formats/qcow1/fixture.h"

namespace imgfsck::qcow1 {
namespace {

uint64_t NumberAt(const ByteVector& bytes, uint64_t at) {
  return RangeFits(at, 8, bytes.size()) ? BeAt<uint64_t>(bytes, at) : 0;
}

// Who claims what, straight from the sheet: header, name, top table, tables, clusters, streams.
std::string OwnedTwice(const ByteVector& bytes) {
  struct Owner {
    uint64_t begin, end;
    std::string name;
  };
  uint64_t bits = bytes[32], l2_bits = bytes[33], size = BeAt<uint64_t>(bytes, 24);
  uint64_t l1 = BeAt<uint64_t>(bytes, 40), cluster = 1ull << bits, entries = 1ull << l2_bits;
  uint64_t slots = (size + cluster * entries - 1) / (cluster * entries);
  std::vector<Owner> owners{{0, 48, "header"}, {l1, l1 + 8 * slots, "l1"}};
  uint64_t name = BeAt<uint64_t>(bytes, 8), name_length = BeAt<uint32_t>(bytes, 16);
  if (name != 0 && name_length != 0) owners.push_back({name, name + name_length, "name"});
  for (uint64_t slot = 0; slot < slots; ++slot) {
    uint64_t table = NumberAt(bytes, l1 + 8 * slot);
    if (table == 0) continue;
    owners.push_back({table, table + 8 * entries, "l2 " + std::to_string(slot)});
    for (uint64_t i = 0; i < entries; ++i) {
      uint64_t raw = NumberAt(bytes, table + 8 * i);
      std::string what = "cluster " + std::to_string(slot * entries + i);
      if (raw >> 63 != 0) {
        uint64_t at = raw & ((1ull << (63 - bits)) - 1);
        owners.push_back({at, at + (raw >> (63 - bits) & (cluster - 1)), what});
      } else if (raw != 0) {
        owners.push_back({raw, raw + cluster, what});
      }
    }
  }
  std::sort(owners.begin(), owners.end(),
            [](const Owner& a, const Owner& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < owners.size(); ++i) {
    if (owners[i].begin < owners[i - 1].end) return owners[i - 1].name + " and " + owners[i].name;
    owners[i].end = std::max(owners[i].end, owners[i - 1].end);
  }
  return "";
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed), base_(Pattern(seed, 512 * kKiB)) {}

  Trial Make() {
    Trial trial;
    Fixture f = MakeSound(&trial.stored);
    trial.owned_twice = OwnedTwice;
    trial.sound = f.bytes;
    uint64_t wounds = 1 + Below(4);
    for (uint64_t i = 0; i < wounds; ++i) Hurt(&f);
    trial.damaged = f.bytes;
    if (encrypted_) trial.passphrase = "key";
    if (backed_) trial.backing = ReaderOf(base_);
    // Without tables to learn from, these fields cannot be worked out again.
    trial.hopeless = {Problem::kQcowClusterBits,  Problem::kQcowL2Bits,     Problem::kQcowSizeSmall,
                      Problem::kQcowSizeOverflow, Problem::kQcowL1Offset,   Problem::kQcowMagic,
                      Problem::kQcowVersion,      Problem::kQcowBackingName};
    return trial;
  }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  Fixture MakeSound(std::vector<HostRange>* stored) {
    unsigned cluster_bits = std::array{9u, 12u, 14u}[Below(3)];
    unsigned l2_bits = std::array{6u, 7u, 9u}[Below(3)];
    uint64_t size = (1 + Below(1500)) * kSector;
    Fixture f(size, cluster_bits, l2_bits);
    encrypted_ = Below(5) == 0;
    backed_ = Below(3) == 0;
    f.header.crypt_method = encrypted_ ? kCryptAes : kCryptNone;
    if (backed_) {
      std::string name = "base.img";
      std::copy(name.begin(), name.end(), f.bytes.begin() + kHeaderLength);
      f.header.backing_file_offset = kHeaderLength;
      f.header.backing_file_size = static_cast<uint32_t>(name.size());
    }
    f.WriteHeader();
    Geometry g = f.geometry();
    uint64_t clusters = g.ClustersOf(size);
    for (uint64_t i = 0; i < 30; ++i) {
      uint64_t cluster = Below(clusters), slot = cluster / g.l2_entries;
      uint64_t index = cluster % g.l2_entries;
      if (f.L1(slot) != 0 && f.EntryOf(slot, index) != 0) continue;
      uint8_t fill = static_cast<uint8_t>(Below(256));
      if (!encrypted_ && Below(4) == 0) {
        Entry entry{(f.AddStream(slot, index, fill), f.EntryOf(slot, index))};
        stored->push_back(MakeHostRange(entry.offset(g), entry.length(g)));
        continue;
      }
      uint64_t at = f.AddCluster(slot, index, fill);
      for (uint64_t j = 0; j < g.cluster_size; j += 2) {
        f.bytes[at + j] = static_cast<uint8_t>(random_());
      }
      stored->push_back(MakeHostRange(at, g.cluster_size));
    }
    return f;
  }

  uint64_t AnyValue(const Fixture& f) {
    switch (Below(8)) {
      case 0:
        return 0;
      case 1:
        return random_();
      case 2:
        return AlignDown(Below(4 * f.bytes.size()), 512);
      case 3:
        return Below(f.bytes.size());
      case 4:
        return f.bytes.size() + AlignDown(Below(1 << 20), 4096);
      case 5:
        return kTopBit | random_() >> Below(40);
      case 6:
        return kTopBit | Below(f.bytes.size());
      default:
        return AlignDown(Below(f.bytes.size()), f.geometry().cluster_size);
    }
  }

  void Hurt(Fixture* f) {
    switch (Below(8)) {
      case 0:
        f->bytes[Below(kHeaderLength)] = static_cast<uint8_t>(Below(256));
        return;
      case 1: {
        uint64_t at = f->header.l1_table_offset + 8 * Below(f->geometry().l1_entries);
        if (at + 8 <= f->bytes.size()) PutBe(f->bytes, at, AnyValue(*f));
        return;
      }
      case 2:
      case 3:
      case 4: {
        uint64_t slot = Below(f->geometry().l1_entries);
        if (f->L1At(slot) + 8 > f->bytes.size() || f->L1(slot) == 0) return;
        uint64_t at = f->L1(slot) + 8 * Below(f->geometry().l2_entries);
        if (RangeFits(at, 8, f->bytes.size())) PutBe(f->bytes, at, AnyValue(*f));
        return;
      }
      case 5:
        if (f->bytes.size() > 600) f->bytes.resize(512 + Below(f->bytes.size() - 512));
        return;
      case 6: {
        uint64_t at = AlignDown(Below(f->bytes.size()), 512);
        uint64_t end = std::min<uint64_t>(at + 512, f->bytes.size());
        bool zeros = Below(2) == 0;
        for (; at < end; ++at) f->bytes[at] = zeros ? 0 : static_cast<uint8_t>(random_());
        return;
      }
      default:
        f->bytes.resize(f->bytes.size() + Below(3000), static_cast<uint8_t>(Below(256)));
    }
  }

  std::mt19937_64 random_;
  ByteVector base_;
  bool encrypted_ = false, backed_ = false;
};

TEST(Qcow1RandomDamage, ChecksAndRepairsKeepTheirPromises) {
  ForEachSeed([](uint64_t seed) {
    TryImage(kFormat, Generator(seed).Make(), "seed " + std::to_string(seed));
  });
}

}  // namespace
}  // namespace imgfsck::qcow1
