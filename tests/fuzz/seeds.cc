// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/seeds.h"

#include <algorithm>
#include <random>

namespace imgfsck::fuzz {
namespace {

struct Kind {
  std::string_view format;
  const char* name;
  uint64_t size;  // of the disk
  CreateOptions options;
  bool snapshot = false, bitmap = false;
};

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {
      {"qcow2", "plain", 200 << 10, {{"cluster_size", "512"}}},
      {"qcow2", "counts of a bit", 100 << 10, {{"cluster_size", "1k"}, {"refcount_bits", "1"}}},
      {"qcow2", "wide counts", 100 << 10, {{"cluster_size", "512"}, {"refcount_bits", "64"}}, true},
      {"qcow2", "snapshot and bitmap", 200 << 10, {{"cluster_size", "1k"}}, true, true},
      {"qcow2", "version 2", 200 << 10, {{"cluster_size", "512"}, {"compat", "v2"}}, true},
      {"qcow2", "lazy", 100 << 10, {{"cluster_size", "1k"}, {"lazy_refcounts", "on"}}},
      {"qcow2", "subclusters", 256 << 10, {{"cluster_size", "16k"}, {"extended_l2", "on"}}},
      {"qcow2", "child", 100 << 10, {{"cluster_size", "512"}, {"backing_file", "base"}}},
      {"qcow2", "data file", 100 << 10, {{"cluster_size", "512"}, {"data_file", "data"}}},
      {"qcow", "plain", 200 << 10, {{"cluster_size", "512"}, {"l2_bits", "6"}}},
      {"qcow", "child", 200 << 10, {{"cluster_size", "1k"}, {"backing_file", "base"}}},
      {"vpc", "dynamic", 200 << 10, {{"block_size", "16K"}, {"force_size", "on"}}},
      {"vpc", "fixed", 34 << 10, {{"subformat", "fixed"}, {"force_size", "on"}}},
      {"vpc",
       "child",
       200 << 10,
       {{"block_size", "16K"},
        {"backing_file", "base.vhd"},
        {"parent_uuid", "0102030405060708090a0b0c0d0e0f10"}}},
      {"cow", "uml", 150 << 10, {{"backing_file", "/base"}}},
      {"cow", "qemu", 150 << 10, {{"backing_file", "/base"}, {"layout", "qemu-x86-64"}}},
      {"raw", "raw", 20 << 10, {}},
  };
  return kinds;
}

ByteVector Noise(std::mt19937_64& random, size_t size) {
  ByteVector bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 5);
  return bytes;
}

// Writes here and there, in an order that is not the guest's.
void Season(Driver& driver, const Kind& kind) {
  std::mt19937_64 random(kind.size);
  const uint64_t size = driver.VirtualSize(), unit = std::max<uint64_t>(driver.ClusterSize(), 512);
  const Capabilities can = driver.capabilities();
  for (const uint64_t tenth : std::initializer_list<uint64_t>{7, 0, 4, 9, 2}) {
    const uint64_t at = size / 10 * tenth / 512 * 512;
    IMG_CHECK(driver.Write(at, Noise(random, std::min<uint64_t>(2000, size - at))).has_value());
  }
  if (can.compressed_write && size >= 4 * unit) {
    (void)driver.WriteCompressed(unit * 2, ByteVector(unit, 5));
  }
  if (kind.snapshot) {
    IMG_CHECK(driver.SnapshotCreate("first").has_value());
    IMG_CHECK(driver.Write(size / 10 * 4, Noise(random, 1500)).has_value());
    IMG_CHECK(driver.SnapshotCreate("second").has_value());
  }
  if (kind.bitmap) IMG_CHECK(driver.BitmapAdd("bits", 1024, true).has_value());
  if (can.zero) (void)driver.Zero(size / 2, 3 * unit);
  IMG_CHECK(driver.Write(size - 512, Noise(random, 512)).has_value());
  IMG_CHECK(driver.Close().has_value());
}

}  // namespace

std::vector<Seed> SeedsOf(const Format& format) {
  std::vector<Seed> seeds;
  if (format.create == nullptr) return seeds;
  for (const Kind& kind : Kinds()) {
    if (kind.format != format.name) continue;
    MemoryStore store;
    IMG_CHECK(format.create(store, kind.size, kind.options).has_value());
    MemoryStore data;
    OpenOptions options;
    options.writable = true;
    options.data_store = &data;
    options.data_source = &data;
    auto driver = format.open(store, &store, options);
    IMG_CHECK(driver.has_value());
    Season(**driver, kind);
    driver->reset();
    seeds.push_back({kind.name, store.bytes()});
  }
  return seeds;
}

}  // namespace imgfsck::fuzz
