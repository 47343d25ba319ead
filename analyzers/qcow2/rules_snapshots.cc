// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

Finding SnapshotFinding(const Image& image, size_t i, Problem problem, std::string detail = {}) {
  const Snapshot& s = image.snapshots.entries[i];
  Finding f;
  f.problem = problem;
  f.structure = fmt::format("snapshot[{}]", i);
  f.host = MakeHostRange(s.host_offset, s.length);
  f.layer = image.LayerName(i + 1);
  f.detail = std::move(detail);
  return f;
}

void JudgeTable(const Image& image, Findings* out) {
  const Header& h = image.header;
  const SnapshotTable& table = image.snapshots;
  if (!IsAligned(h.snapshots_offset, image.geometry.cluster_size)) {
    out->Add(HeaderFinding(Problem::kQcow2SnapTableUnaligned, "snapshots_offset",
                           Hex(h.snapshots_offset)));
  } else if (h.nb_snapshots == 0 && h.snapshots_offset != 0) {
    out->Add(
        HeaderFinding(Problem::kQcow2SnapOffsetStale, "snapshots_offset", Hex(h.snapshots_offset)));
  }
  if (h.nb_snapshots > kMaxSnapshots) {
    out->Add(HeaderFinding(Problem::kQcow2SnapCountCap, "nb_snapshots",
                           fmt::format("{}", h.nb_snapshots)));
  }
  if (h.nb_snapshots > 0 && (h.snapshots_offset >= image.file_size || h.snapshots_offset == 0)) {
    Finding past =
        HeaderFinding(Problem::kQcow2SnapTablePastEof, "snapshots_offset", Hex(h.snapshots_offset));
    past.layer = kUnlistedLayer;
    out->Add(std::move(past));
    return;
  }
  if (h.nb_snapshots > 0 && table.entries.empty() && table.stop == SnapshotTable::Stop::kNone &&
      IsAligned(h.snapshots_offset, image.geometry.cluster_size)) {
    out->Add(HeaderFinding(Problem::kQcow2HdrShapeOverlap, "snapshots_offset",
                           "no snapshot table, but another table, at " + Hex(h.snapshots_offset)));
    return;
  }
  Finding f;
  f.structure = fmt::format("snapshot[{}]", table.stopped_at);
  f.layer = kUnlistedLayer;
  f.host = MakeHostRange(table.stopped_offset, 40);
  f.detail = fmt::format("{} of {} entries can be read", table.entries.size(), h.nb_snapshots);
  switch (table.stop) {
    case SnapshotTable::Stop::kCap:
      f.problem = Problem::kQcow2SnapTableCap;
      f.layer.clear();  // QEMU opens no image with such a table
      break;
    case SnapshotTable::Stop::kOverrun:
      f.problem = Problem::kQcow2SnapEntryOverrun;
      break;
    case SnapshotTable::Stop::kPastEof:
      f.problem = Problem::kQcow2SnapTablePastEof;
      break;
    case SnapshotTable::Stop::kNone:
    case SnapshotTable::Stop::kCount:
      return;  // the count was reported above
  }
  out->Add(std::move(f));
}

bool IsPhantom(const Snapshot& s) {
  return s.id.empty() && s.name.empty() && s.l1_table_offset == 0;
}

void JudgeExtra(const Image& image, size_t i, Findings* out) {
  const Snapshot& s = image.snapshots.entries[i];
  std::string text = fmt::format("{} bytes", s.extra_data_size);
  if (image.header.is_v3() && s.extra_data_size < kMinSnapshotExtraV3) {
    out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapExtraShort, text));
  }
  if (s.extra_data_size > kMaxSnapshotExtra) {
    Finding f = SnapshotFinding(image, i, Problem::kQcow2SnapExtraCap, text);
    // Extra data that is really there is cut only when asked for.
    if (!s.extra_guessed) f.repair = RepairClass::kAll;
    f.layer.clear();  // QEMU does not open the image at all
    out->Add(std::move(f));
  }
}

void JudgeSnapshotL1(const Image& image, size_t i, Findings* out) {
  const Snapshot& s = image.snapshots.entries[i];
  uint64_t bytes = uint64_t{s.l1_size} * 8, needed = image.L1Min(i + 1);
  if (!IsAligned(s.l1_table_offset, image.geometry.cluster_size)) {
    out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapL1Unaligned, Hex(s.l1_table_offset)));
    return;
  }
  if (bytes > kMaxL1Bytes) {
    out->Add(
        SnapshotFinding(image, i, Problem::kQcow2SnapL1Cap, fmt::format("{} entries", s.l1_size)));
  }
  if (s.l1_size < needed) {
    Finding f = SnapshotFinding(image, i, Problem::kQcow2SnapL1Short,
                                fmt::format("{} entries, {} needed", s.l1_size, needed));
    SetRangeBehindL1(image, i + 1, s.l1_table_offset, s.l1_size, &f);
    out->Add(std::move(f));
  }
  if (!RangeFits(s.l1_table_offset, bytes, AlignUp(image.file_size, image.geometry.cluster_size))) {
    Finding f = SnapshotFinding(image, i, Problem::kQcow2SnapL1PastEof,
                                fmt::format("{}, {} bytes", Hex(s.l1_table_offset), bytes));
    SetRangeBehindL1(image, i + 1, s.l1_table_offset, s.l1_size, &f);
    out->Add(std::move(f));
  }
  uint64_t covered =
      uint64_t{s.l1_size} >= needed ? SaturatingMul(s.l1_size - needed, image.geometry.l2_span) : 0;
  if (s.vm_state_size() > covered) {
    Finding f = SnapshotFinding(
        image, i, Problem::kQcow2SnapVmstateRange,
        fmt::format("{} bytes of VM state, room for {}", s.vm_state_size(), covered));
    // Guest offsets of the VM state follow the disk's.
    f.guest =
        MakeGuestRange(SaturatingMul(std::max<uint64_t>(s.l1_size, needed), image.geometry.l2_span),
                       s.vm_state_size() - covered);
    out->Add(std::move(f));
  }
}

}  // namespace

void JudgeSnapshots(const Image& image, Findings* out) {
  JudgeTable(image, out);
  std::map<std::string, size_t> ids;
  for (size_t i = 0; i < image.snapshots.entries.size(); ++i) {
    const Snapshot& s = image.snapshots.entries[i];
    if (IsPhantom(s)) {
      out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapPhantom));
      continue;
    }
    JudgeExtra(image, i, out);
    if (s.l1_table_offset == 0 && s.l1_size > 0) {
      out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapPhantom, "no L1 table"));
    } else {
      JudgeSnapshotL1(image, i, out);
    }
    if (s.id.empty()) out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapIdEmpty));
    if (!s.id.empty() && !ids.try_emplace(s.id, i).second) {
      out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapIdDuplicate, "id " + Printable(s.id)));
    }
    if (s.id.find('\0') != std::string::npos || s.name.find('\0') != std::string::npos) {
      out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapNameNul));
    }
    if (s.date_nsec >= 1'000'000'000) out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapTime));
    if (image.has_data_file()) out->Add(SnapshotFinding(image, i, Problem::kQcow2SnapDataFile));
  }
}

}  // namespace imgfsck::qcow2
