// SPDX-License-Identifier: Apache-2.0
// Seeded random VHDs, and random damage done to them.
#pragma once

#include <random>
#include <string>

#include "tests/unit/repair/vhd/repair_helpers.h"

namespace imgfsck::vhd {

class Damager {
 public:
  explicit Damager(uint64_t seed) : random_(seed) {}

  uint64_t Pick(uint64_t below) { return random_() % below; }

  // A fixed, dynamic, tap or differencing disk of some ten blocks, about half of them stored, in
  // random order.
  MemoryStore Make() {
    MemoryStore store;
    kind_ = Pick(10);
    if (kind_ == 0) {
      MakeVhd(store, 8 * kTestBlock, {{"subformat", "fixed"}});
    } else {
      CreateOptions options = kind_ <= 2 ? ChildOptions() : CreateOptions{};
      MakeVhd(store, (6 + Pick(12)) * kTestBlock + Pick(100) * 512, options);
    }
    auto driver = OpenStore(kFormat, store);
    uint64_t blocks = driver->VirtualSize() / kTestBlock;
    for (uint64_t i = 0; i < blocks; ++i) {
      uint64_t at = Pick(blocks) * kTestBlock + Pick(2) * Pick(64) * 512;
      uint64_t length = std::min(512 * (1 + Pick(100)), driver->VirtualSize() - at);
      EXPECT_TRUE(driver->Write(at, Pattern(random_(), length)));
    }
    return store;
  }
  bool fixed() const { return kind_ == 0; }
  bool child() const { return kind_ == 1 || kind_ == 2; }

  // One to three damages; says what it did.
  std::string Damage(MemoryStore& store) {
    std::string did;
    for (uint64_t n = 1 + Pick(3); n > 0; --n) did += DamageOnce(store) + "; ";
    return did;
  }

 private:
  uint64_t MetadataPlace(const MemoryStore& m) {
    uint64_t end = m.Size() > 512 ? m.Size() - 512 : 0;
    switch (Pick(fixed() ? 1 : 4)) {
      case 0:
        return end + Pick(90);
      case 1:
        return Pick(90);
      case 2:
        return 512 + Pick(64);
      default:
        return kDefaultTableOffset + Pick(80);
    }
  }
  void Put(MemoryStore& m, uint64_t at, uint64_t length, int byte) {
    for (uint64_t i = at; i < at + length && i < m.Size(); ++i) {
      m.bytes()[i] = byte < 0 ? static_cast<uint8_t>(random_()) : static_cast<uint8_t>(byte);
    }
  }
  std::string DamageOnce(MemoryStore& m) {
    if (m.Size() < 4096) return "nothing";
    switch (Pick(fixed() ? 5 : 10)) {
      case 0: {
        uint64_t at = MetadataPlace(m);
        if (at < m.Size()) m.bytes()[at] ^= static_cast<uint8_t>(1u << Pick(8));
        return "bit at " + std::to_string(at);
      }
      case 1: {
        uint64_t at = MetadataPlace(m), length = 1 + Pick(40);
        static constexpr int kBytes[] = {0, 0xFF, -1};
        Put(m, at, length, kBytes[Pick(3)]);
        return std::to_string(length) + " bytes at " + std::to_string(at);
      }
      case 2: {
        uint64_t cut = 1 + Pick(Pick(3) == 0 ? m.Size() / 2 : 2000);
        m.bytes().resize(m.Size() - cut);
        return "cut " + std::to_string(cut);
      }
      case 3: {
        uint64_t more = 1 + Pick(5000);
        uint64_t old = m.Size();
        m.bytes().resize(old + more);
        if (Pick(2) == 0) Put(m, old, more, -1);
        return "appended " + std::to_string(more);
      }
      case 4: {
        uint64_t at = Pick(2) == 0 ? m.Size() - 512 : 0;
        if (fixed()) at = m.Size() - 512;
        Put(m, at, 512, static_cast<int>(Pick(2)) * 0xC7);
        return "sector " + std::to_string(at) + " wiped";
      }
      default:
        return DamageEntry(m);
    }
  }
  std::string DamageEntry(MemoryStore& m) {
    uint64_t index = Pick(16), other = Pick(16);
    uint32_t value = Entry(m, other);
    switch (Pick(7)) {
      case 0:
        break;
      case 1:
        value += static_cast<uint32_t>(1 + Pick(60));
        break;
      case 2:
        value = static_cast<uint32_t>(Pick(8));
        break;
      case 3:
        value = 0;
        break;
      case 4:
        value = static_cast<uint32_t>(random_());
        break;
      case 5:
        value = kUnallocated;
        break;
      default:
        value = static_cast<uint32_t>(m.Size() / 512 - Pick(120));
        break;
    }
    SetEntry(m, index, value);
    return "entry " + std::to_string(index) + " = " + std::to_string(value);
  }

  std::mt19937_64 random_;
  uint64_t kind_ = 3;
};

}  // namespace imgfsck::vhd
