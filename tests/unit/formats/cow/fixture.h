// SPDX-License-Identifier: Apache-2.0
// COW images of every layout, laid out by hand from the sheet's numbers and not by our encoder.
#pragma once

#include <algorithm>
#include <string>

#include "formats/cow/image.h"

namespace imgfsck::cow {

struct Fixture {
  LayoutId layout;
  bool little = false;  // version 1 only
  std::string path = "/images/base.img";
  uint64_t mtime = 1700000000, size = 0;
  ByteVector bytes;

  const Layout& spec() const { return LayoutOf(layout); }
  Geometry geometry() const {
    return MakeGeometry(spec(), size, 512, spec().version == 3 ? 4096 : 0);
  }

  void Put(uint64_t at, unsigned length, uint64_t value) {
    for (unsigned i = 0; i < length; ++i) {
      unsigned shift = 8 * (little ? i : length - 1 - i);
      bytes[at + i] = static_cast<uint8_t>(value >> shift);
    }
  }
  void WriteHeader() {
    const Layout& l = spec();
    Put(0, 4, kMagic);
    Put(l.version_offset, 4, l.version);
    std::fill_n(bytes.begin() + l.path_offset, l.path_length, uint8_t{0});
    std::copy(path.begin(), path.end(), bytes.begin() + l.path_offset);
    Put(l.mtime_offset, l.wide_mtime ? 8 : 4, mtime);
    Put(l.size_offset, 8, size);
    Put(l.sectorsize_offset, 4, 512);
    if (l.alignment_offset != 0) Put(l.alignment_offset, 4, 4096);
  }
  explicit Fixture(LayoutId id, uint64_t disk = 300 * 512, bool little_endian = false)
      : layout(id), little(little_endian), size(disk) {
    Geometry g = geometry();
    bytes.resize(spec().qemu ? g.bitmap_end() : g.data_end());
    WriteHeader();
  }

  void SetBit(uint64_t sector, bool set = true) {
    uint8_t& byte = bytes[geometry().bitmap_offset + sector / 8];
    uint8_t mask = static_cast<uint8_t>(1u << (sector % 8));
    byte = set ? byte | mask : static_cast<uint8_t>(byte & ~mask);
  }
  void PutData(uint64_t sector, uint8_t fill) {
    uint64_t at = geometry().HostOf(sector);
    if (bytes.size() < at + 512) bytes.resize(at + 512);
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 512, fill);
  }
  void Store(uint64_t sector, uint8_t fill) {
    SetBit(sector);
    PutData(sector, fill);
  }

  // Some sectors stored, byte and word borders among them.
  static Fixture Sound(LayoutId id, bool little_endian = false) {
    Fixture f(id, 300 * 512, little_endian);
    for (uint64_t sector : {uint64_t{0}, uint64_t{1}, uint64_t{9}, uint64_t{63}, uint64_t{64},
                            uint64_t{200}, uint64_t{255}, uint64_t{290}}) {
      f.Store(sector, static_cast<uint8_t>(sector + 1));
    }
    return f;
  }
};

}  // namespace imgfsck::cow
