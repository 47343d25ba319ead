// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/formats/qcow2/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"

namespace imgfsck::qcow2 {

Model::Model(uint64_t size, const ByteVector& base, Limits limits, uint64_t seed)
    : disk(size), base_(base), limits_(limits), random_(seed) {
  std::copy_n(base.begin(), std::min<uint64_t>(size, base.size()), disk.begin());
}

GuestRange Model::RandomRange(uint64_t longest) {
  uint64_t length = 1 + Random(Random(3) == 0 ? longest : longest / 16);
  uint64_t offset = Random(disk.size());
  if (Random(2) == 0) offset = AlignDown(offset, 512);
  if (Random(2) == 0) length = AlignUp(length, 512);
  if (Random(8) == 0) offset = disk.size() - std::min<uint64_t>(length, disk.size());
  return MakeGuestRange(offset, std::min<uint64_t>(length, disk.size() - offset));
}

void Model::Mark(uint64_t offset, uint64_t length) {
  uint64_t end = std::min<uint64_t>(SaturatingAdd(offset, length), disk.size());
  for (auto& [name, bitmap] : bitmaps) {
    if (!bitmap.enabled || offset >= end) continue;
    for (uint64_t bit = offset / bitmap.granularity; bit * bitmap.granularity < end; ++bit) {
      bitmap.dirty.insert(bit);
    }
  }
}

Status Model::Write(Driver& driver) {
  GuestRange range = RandomRange(6 * driver.ClusterSize());
  ByteVector bytes(range.length);
  uint8_t seed = static_cast<uint8_t>(random_());
  for (auto& byte : bytes) byte = seed = static_cast<uint8_t>(seed * 5 + 3);
  if (Random(4) == 0) {
    for (auto& byte : bytes) byte = static_cast<uint8_t>(random_());
  }
  last = fmt::format("write {}+{}", range.offset.value, range.length);
  IMG_RETURN_IF_ERROR(driver.Write(range.offset.value, bytes));
  std::ranges::copy(bytes, disk.begin() + static_cast<ptrdiff_t>(range.offset.value));
  Mark(range.offset.value, range.length);
  return Ok();
}

Status Model::Compress(Driver& driver) {
  const uint64_t cluster = driver.ClusterSize();
  uint64_t offset = AlignDown(Random(disk.size()), cluster);
  uint64_t length = std::min<uint64_t>((1 + Random(5)) * cluster, disk.size() - offset);
  ByteVector bytes(length);
  // Some clusters shrink much, some a little, some not at all.
  uint64_t noise = Random(3) * 100 + 1;
  for (auto& byte : bytes) byte = Random(200) < noise ? static_cast<uint8_t>(random_()) : 7;
  last = fmt::format("compressed write {}+{}", offset, length);
  IMG_RETURN_IF_ERROR(driver.WriteCompressed(offset, bytes));
  std::ranges::copy(bytes, disk.begin() + static_cast<ptrdiff_t>(offset));
  Mark(offset, length);
  return Ok();
}

Status Model::Zero(Driver& driver, bool discard) {
  const uint64_t cluster = driver.ClusterSize();
  GuestRange range = RandomRange(8 * cluster);
  uint64_t from = range.offset.value, to = range.end();
  last = fmt::format("{} {}+{}", discard ? "discard" : "zero", from, range.length);
  IMG_RETURN_IF_ERROR(discard ? driver.Discard(from, to - from) : driver.Zero(from, to - from));
  Mark(from, to - from);
  if (discard && limits_.discard_is_hint) return Ok();
  if (discard) {
    from = AlignUp(from, cluster);
    to = to == disk.size() ? to : AlignDown(to, cluster);
  }
  if (from < to)
    std::fill(disk.begin() + static_cast<ptrdiff_t>(from),
              disk.begin() + static_cast<ptrdiff_t>(to), uint8_t{0});
  return Ok();
}

Status Model::Snapshot(Driver& driver) {
  if (snapshots.empty() || Random(5) < 2) {
    std::string name = fmt::format("s{}", ++names_);
    last = "snapshot create " + name;
    IMG_RETURN_IF_ERROR(driver.SnapshotCreate(name));
    snapshots[name] = {disk};
    return Ok();
  }
  auto at = std::next(snapshots.begin(), static_cast<ptrdiff_t>(Random(snapshots.size())));
  if (snapshots.size() > 4 || Random(2) == 0) {
    last = "snapshot delete " + at->first;
    IMG_RETURN_IF_ERROR(driver.SnapshotDelete(at->first));
    snapshots.erase(at);
    return Ok();
  }
  last = "snapshot apply " + at->first;
  IMG_RETURN_IF_ERROR(driver.SnapshotApply(at->first));
  disk = at->second.disk;
  for (auto& [name, bitmap] : bitmaps) {
    std::erase_if(bitmap.dirty, [&, unit = bitmap.granularity](uint64_t bit) {
      return bit * unit >= disk.size();
    });
  }
  Mark(0, disk.size());
  return Ok();
}

Status Model::Bitmap(Driver& driver) {
  if (bitmaps.empty() || (bitmaps.size() < 4 && Random(2) == 0)) {
    std::string name = fmt::format("b{}", ++names_);
    ModelBitmap bitmap{{}, uint64_t{512} << Random(6), Random(3) != 0};
    last = "bitmap add " + name;
    IMG_RETURN_IF_ERROR(driver.BitmapAdd(name, bitmap.granularity, bitmap.enabled));
    bitmaps[name] = bitmap;
    return Ok();
  }
  auto at = std::next(bitmaps.begin(), static_cast<ptrdiff_t>(Random(bitmaps.size())));
  auto& [name, bitmap] = *at;
  switch (Random(4)) {
    case 0:
      last = "bitmap remove " + name;
      IMG_RETURN_IF_ERROR(driver.BitmapRemove(name));
      bitmaps.erase(at);
      return Ok();
    case 1:
      last = "bitmap clear " + name;
      bitmap.dirty.clear();
      return driver.BitmapClear(name);
    case 2:
      last = "bitmap toggle " + name;
      bitmap.enabled = !bitmap.enabled;
      return driver.BitmapSetEnabled(name, bitmap.enabled);
    default: {
      auto from = std::next(bitmaps.begin(), static_cast<ptrdiff_t>(Random(bitmaps.size())));
      last = "bitmap merge " + name + " " + from->first;
      IMG_RETURN_IF_ERROR(driver.BitmapMerge(name, from->first));
      const uint64_t source = from->second.granularity;
      for (uint64_t bit : std::set<uint64_t>(from->second.dirty)) {
        uint64_t end = std::min<uint64_t>((bit + 1) * source, disk.size());
        for (uint64_t b = bit * source / bitmap.granularity; b * bitmap.granularity < end; ++b) {
          bitmap.dirty.insert(b);
        }
      }
      return Ok();
    }
  }
}

Status Model::Resize(Driver& driver) {
  uint64_t size = AlignUp(Random(limits_.largest) + 1, 512);
  last = fmt::format("resize {} to {}", disk.size(), size);
  uint64_t old = disk.size();
  IMG_RETURN_IF_ERROR(driver.Resize(size));
  disk.resize(size);
  // A backing file that is longer than the disk was shows up again.
  for (uint64_t i = old; i < std::min<uint64_t>(size, base_.size()); ++i) disk[i] = 0;
  if (old < base_.size() && size > old) {
    IMG_RETURN_IF_ERROR(driver.Zero(old, std::min<uint64_t>(size, base_.size()) - old));
    Mark(old, std::min<uint64_t>(size, base_.size()) - old);
  }
  for (auto& [name, bitmap] : bitmaps) {
    std::erase_if(bitmap.dirty,
                  [&, unit = bitmap.granularity](uint64_t bit) { return bit * unit >= size; });
  }
  return Ok();
}

Status Model::Step(Driver& driver) {
  switch (Random(20)) {
    case 0:
    case 1:
    case 2:
      if (limits_.compress) return Compress(driver);
      return Write(driver);
    case 3:
    case 4:
    case 5:
      return Zero(driver, false);
    case 6:
    case 7:
      return Zero(driver, true);
    case 8:
      if (limits_.snapshots) return Snapshot(driver);
      return Write(driver);
    case 9:
      if (limits_.bitmaps) return Bitmap(driver);
      return Write(driver);
    case 10:
      if (limits_.resize && Random(3) == 0) return Resize(driver);
      return Write(driver);
    case 11:
      last = "flush";
      return driver.Flush();
    default:
      return Write(driver);
  }
}

std::string Model::Differences(Driver& driver) {
  if (driver.VirtualSize() != disk.size()) {
    return fmt::format("size {} instead of {}", driver.VirtualSize(), disk.size());
  }
  ByteVector bytes(disk.size());
  auto status = driver.Read(0, bytes);
  if (!status) return "read: " + status.error().message;
  auto at = std::ranges::mismatch(bytes, disk);
  if (at.in1 != bytes.end()) {
    return fmt::format("byte {} reads {:#x} instead of {:#x}", at.in1 - bytes.begin(), *at.in1,
                       *at.in2);
  }
  for (const auto& [name, bitmap] : bitmaps) {
    auto ranges = driver.BitmapDirty(name);
    if (!ranges) return name + ": " + ranges.error().message;
    std::set<uint64_t> dirty;
    for (const GuestRange& range : *ranges) {
      for (uint64_t at_byte = range.offset.value; at_byte < range.end();
           at_byte += bitmap.granularity) {
        dirty.insert(at_byte / bitmap.granularity);
      }
    }
    if (dirty != bitmap.dirty) {
      return fmt::format("{} has {} bits instead of {}", name, dirty.size(), bitmap.dirty.size());
    }
  }
  return "";
}

}  // namespace imgfsck::qcow2
