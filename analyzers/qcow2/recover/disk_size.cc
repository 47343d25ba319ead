// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/disk_size.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/l2_walk.h"
#include "analyzers/qcow2/recover/guest_signs.h"
#include "analyzers/qcow2/recover/prefix_source.h"
#include "formats/common/tolerant.h"
#include "formats/qcow2/driver.h"

namespace imgfsck::qcow2 {
namespace {

// The end of the last guest cluster that the active L1 table maps to anything.
uint64_t MappedEnd(const Image& image) {
  const Geometry& g = image.geometry;
  std::vector<HostRange> bad;
  ByteVector l1(kMiB), table(g.cluster_size);
  for (uint64_t end = image.active.entries; end > 0;) {
    uint64_t begin = end > l1.size() / 8 ? end - l1.size() / 8 : 0;
    MutableBytes part = MutableBytes(l1).first((end - begin) * 8);
    ReadTolerant(*image.source, image.active.offset + begin * 8, part, &bad);
    for (uint64_t i = end; i-- > begin;) {
      uint64_t offset = BeAt<uint64_t>(part, (i - begin) * 8) & kOffsetMask;
      if (offset == 0 || !IsAligned(offset, g.cluster_size) || offset >= image.file_size) continue;
      ReadTolerant(*image.source, offset, table, &bad);
      if (Implausible(image, table)) continue;
      for (uint64_t k = g.l2_entries; k-- > 0;) {
        if (!LoadEntry(g, table, k).empty()) return (i * g.l2_entries + k + 1) << g.cluster_bits;
      }
    }
    end = begin;
  }
  return 0;
}

// Read through the driver, with a disk as large as the L1 table can map.
std::vector<SizeSign> GuestSigns(const Image& image) {
  const uint64_t whole =
      std::min(SaturatingMul(image.active.entries, image.geometry.l2_span), uint64_t{1} << 62);
  ByteVector start(kHeaderLengthV2);
  if (whole == 0 || !ReadExact(*image.source, 0, start)) return {};
  PutBe(start, 24, whole);
  PutBe(start, 36, static_cast<uint32_t>(image.active.entries));
  PrefixSource view(*image.source, std::move(start));
  auto driver = OpenDriver(view, nullptr, {});
  if (!driver) return {};
  auto read = [&](uint64_t offset, MutableBytes buffer) {
    return (*driver)->Read(offset, buffer).has_value();
  };
  return FindSizeSigns(read, whole);
}

}  // namespace

bool MapsBehind(const Image& image, uint64_t size) {
  bool vm_state = std::ranges::any_of(image.snapshots.entries,
                                      [](const Snapshot& s) { return s.vm_state_size() > 0; });
  uint64_t end = SaturatingMul(image.geometry.MinL1Entries(size), image.geometry.l2_span);
  return !vm_state && image.active.entries > image.geometry.MinL1Entries(size) &&
         MappedEnd(image) > end;
}

DiskSize FindDiskSize(const Image& image) {
  const uint64_t mapped = MappedEnd(image);
  // A witness that knows of less than is mapped is wrong, or speaks of something else.
  const uint64_t least = mapped - std::min(mapped, image.geometry.cluster_size - 1);
  const auto signs = GuestSigns(image);
  for (const SizeSign& sign : signs) {
    if (!sign.exact || sign.bytes < least) continue;
    return {AlignUp(sign.bytes, kSector), true,
            fmt::format("{} bytes, says {} on the disk", sign.bytes, sign.text)};
  }
  uint64_t of_snapshot = 0;
  for (const Snapshot& s : image.snapshots.entries) {
    of_snapshot = std::max(of_snapshot, s.disk_size().value_or(0));
  }
  if (of_snapshot >= least && of_snapshot > 0) {
    return {of_snapshot, true, fmt::format("{} bytes, as in a snapshot", of_snapshot)};
  }
  uint64_t at_least = 0;
  std::string witness;
  for (const SizeSign& sign : signs) {
    if (sign.bytes <= at_least) continue;
    at_least = sign.bytes;
    witness = sign.text;
  }
  if (at_least >= least && at_least > 0) {
    return {AlignUp(at_least, kSector), false,
            fmt::format("{} bytes, where {} on the disk ends", at_least, witness)};
  }
  return {AlignUp(std::max<uint64_t>(mapped, kSector), kMiB), false,
          fmt::format("at least {} bytes, nothing is mapped behind that", mapped)};
}

}  // namespace imgfsck::qcow2
