// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/snapshot_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace imgfsck::qcow2 {

Status WriteSnapshotTable(Editor& editor, const std::vector<Snapshot>& entries, uint64_t used_end) {
  const Image& image = editor.image();
  const Geometry& g = image.geometry;
  ByteVector bytes;
  for (const Snapshot& s : entries) {
    ByteVector entry = EncodeSnapshot(s);
    bytes.insert(bytes.end(), entry.begin(), entry.end());
  }
  const uint64_t old = image.header.snapshots_offset;
  used_end = std::max(image.snapshots.end, used_end);
  bool usable =
      old != 0 && IsAligned(old, g.cluster_size) && old < image.file_size && used_end > old;
  uint64_t room = usable ? AlignUp(used_end - old, g.cluster_size) : 0;
  uint64_t offset = usable ? old : 0;
  uint64_t kept = AlignUp(bytes.size(), g.cluster_size);
  if (bytes.empty()) {
    offset = 0;
  } else if (bytes.size() > room) {
    IMG_ASSIGN_OR_RETURN(offset, editor.Allocate(g.ClustersOf(bytes.size())));
    kept = 0;
  }
  // What could not be read of the old table may still be of use to somebody; what is beyond the
  // format's limit is given up.
  const auto stop = image.snapshots.stop;
  if (stop != SnapshotTable::Stop::kNone && stop != SnapshotTable::Stop::kCap) kept = room;
  for (uint64_t at = kept; at < room; at += g.cluster_size) {
    const uint64_t cluster = (old + at) >> g.cluster_bits;
    if (StoredCount(image, cluster) == 1) IMG_RETURN_IF_ERROR(editor.SetCount(cluster, 0));
  }
  if (!bytes.empty()) IMG_RETURN_IF_ERROR(editor.Write(offset, bytes));
  IMG_RETURN_IF_ERROR(editor.Write64(64, offset));
  return editor.Write32(60, static_cast<uint32_t>(entries.size()));
}

std::string NextSnapshotId(const std::vector<Snapshot>& entries) {
  uint64_t highest = 0;
  for (const Snapshot& s : entries) {
    uint64_t id = 0;
    std::from_chars(s.id.data(), s.id.data() + s.id.size(), id);
    highest = std::max(highest, id);
  }
  return fmt::format("{}", highest + 1);
}

void SetSnapshotDiskSize(Snapshot* snapshot, uint64_t disk_size) {
  uint64_t vm_state = snapshot->vm_state_size();
  snapshot->extra.resize(std::max<size_t>(snapshot->extra.size(), 24));
  StoreBe(&snapshot->extra[0], vm_state);
  StoreBe(&snapshot->extra[8], disk_size);
}

}  // namespace imgfsck::qcow2
