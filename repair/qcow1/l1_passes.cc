// SPDX-License-Identifier: Apache-2.0
// The L1 table: its place, its entries, the length of the file behind it, and tables that lost
// their entry.
#include <fmt/format.h>

#include <algorithm>

#include "repair/qcow1/editor.h"
#include "repair/qcow1/infer.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

bool NamedTwice(const Image& image, uint64_t offset) {
  return std::any_of(image.l1.begin(), image.l1.end(),
                     [&](const L1Slot& slot) { return slot.value == offset; });
}

// A flagged entry's table, when a sound one stands at the place that remains.
bool SoundBehindFlag(const Image& image, uint64_t offset) {
  if (offset == 0 || offset >= image.file_size || NamedTwice(image, offset) ||
      !IsAligned(offset, image.geometry.cluster_size)) {
    return false;
  }
  std::vector<uint64_t> entries;
  std::vector<HostRange> bad;
  ReadL2(image, offset, &entries, &bad);
  bool used = false;
  for (uint64_t raw : entries) {
    if (raw == 0) continue;
    EntryCheck check = CheckEntry(image, Entry{raw});
    if (check.damaged() || check.unaligned) return false;
    used = true;
  }
  return used && bad.empty();
}

// An L1 table that is merely unaligned stays where it is.
bool Misplaced(const CheckReport& report) {
  const auto& kept = report.findings.kept();
  return std::any_of(kept.begin(), kept.end(), [](const Finding& f) {
    return f.problem == Problem::kQcowL1Offset && f.severity_or_default() == Severity::kCorruption;
  });
}

Status DropTable(Editor* editor, const L1Slot& slot) {
  editor->Changed(editor->image().GuestOf(slot), true);
  return editor->SetL1(slot.index, 0);
}

// The table keeps what it says and gets a place of its own.
Status MoveTable(Editor* editor, const L1Slot& slot) {
  const Geometry& g = editor->image().geometry;
  if (!editor->CanAppend(g.l2_bytes)) return Ok();  // the next time round
  IMG_ASSIGN_OR_RETURN(uint64_t at, editor->AppendCopy(slot.value, g.l2_bytes, g.cluster_size));
  return editor->SetL1(slot.index, at);
}

Status RepairSlot(Editor* editor, size_t index, bool overlaps) {
  const Image& image = editor->image();
  const L1Slot& slot = image.l1[index];
  switch (editor->state().fates[index]) {
    case TableFate::kFlag: {
      if (!editor->Mends(Problem::kQcowL1EntryFlag)) return Ok();
      uint64_t clear = slot.value & ~kTopBit;
      if (!SoundBehindFlag(image, clear)) return DropTable(editor, slot);
      editor->Changed(image.GuestOf(slot), false);
      return editor->SetL1(slot.index, clear);
    }
    case TableFate::kPastEof:  // reads as if it were not there: nothing changes for the guest
      return editor->Mends(Problem::kQcowL1EntryPastEof) ? editor->SetL1(slot.index, 0) : Ok();
    case TableFate::kImplausible:
      return editor->Mends(Problem::kQcowL2Implausible) ? DropTable(editor, slot) : Ok();
    case TableFate::kWalked:
      break;
    case TableFate::kShared:
    case TableFate::kSkipped:
      return Ok();
  }
  bool by_code = editor->options().also_fix.contains(Problem::kQcowL1EntryUnaligned);
  bool unaligned = !IsAligned(slot.value, image.geometry.cluster_size) &&
                   (!IsAligned(slot.value, kSector) || by_code);
  bool move = (unaligned && editor->Mends(Problem::kQcowL1EntryUnaligned)) ||
              (overlaps && editor->Mends(Problem::kQcowMetaOverlap));
  return move ? MoveTable(editor, slot) : Ok();
}

// Tables that overlap other metadata; of two tables the later one in the file is moved.
std::vector<uint64_t> OverlappingTables(const CheckState& state) {
  std::vector<uint64_t> indices;
  uint64_t end = 0;
  bool end_is_table = false;
  uint64_t end_index = 0;
  for (const Claim& claim : state.conflicts) {
    if (!claim.metadata()) continue;
    uint64_t index = claim.guest / state.image->geometry.span;
    bool table = claim.kind == ClaimKind::kL2;
    if (claim.begin < end) {
      if (table)
        indices.push_back(index);
      else if (end_is_table)
        indices.push_back(end_index);
    }
    if (claim.end > end) {
      end = claim.end;
      end_is_table = table;
      end_index = index;
    }
  }
  std::sort(indices.begin(), indices.end());
  return indices;
}

}  // namespace

Result<PassOutcome> RepairL1Place(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  Header header = image.header;
  if (!image.walkable) return editor.Finish();
  if (editor.Mends(Problem::kQcowL1Offset) && Misplaced(context.report)) {
    IMG_ASSIGN_OR_RETURN(auto place, InferL1Offset(editor.bytes(), header));
    std::optional<uint64_t> size;  // a table in the right place that is said to be too long
    if (!place && !image.l1_clear) {
      IMG_ASSIGN_OR_RETURN(size, InferSize(editor.bytes(), header));
    }
    if (!place && (!size || *size >= header.size)) {
      editor.Note("no table was found that could be the top table of the disk");
      return editor.Finish();
    }
    header.l1_table_offset = place.value_or(header.l1_table_offset);
    header.size = size.value_or(header.size);
    IMG_RETURN_IF_ERROR(editor.SetHeader(header));
    return editor.Finish();
  }
  if (!editor.Mends(Problem::kQcowL1PastEof)) return editor.Finish();
  if (header.l1_table_offset < image.file_size) {
    // Reads the same before and after: readers take what is missing as zeros.
    IMG_RETURN_IF_ERROR(editor.bytes().SetSize(header.l1_table_offset + image.geometry.l1_bytes()));
    ++editor.outcome().changes;
    return editor.Finish();
  }
  bool may_guess = context.options.mode == RepairMode::kAll ||
                   context.options.also_fix.contains(Problem::kQcowL1PastEof);
  if (!may_guess) return editor.Finish();
  IMG_ASSIGN_OR_RETURN(auto place, InferL1Offset(editor.bytes(), header));
  if (place) {
    header.l1_table_offset = *place;
    editor.Changed(MakeGuestRange(0, image.geometry.virtual_size), false);
  } else {
    // A new, empty one: tables that are found are linked to it by a later pass.
    IMG_ASSIGN_OR_RETURN(header.l1_table_offset, editor.AppendZeros(image.geometry.l1_bytes(),
                                                                    image.geometry.cluster_size));
    editor.Note("the top table is gone; a new one was made");
  }
  IMG_RETURN_IF_ERROR(editor.SetHeader(header));
  return editor.Finish();
}

Result<PassOutcome> RepairL1Entries(const PassContext& context) {
  Editor editor(context);
  std::vector<uint64_t> overlapping = OverlappingTables(editor.state());
  for (size_t index = 0; index < editor.state().fates.size(); ++index) {
    bool overlaps =
        std::binary_search(overlapping.begin(), overlapping.end(), editor.image().l1[index].index);
    IMG_RETURN_IF_ERROR(RepairSlot(&editor, index, overlaps));
  }
  return editor.Finish();
}

Result<PassOutcome> RepairLength(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  const Geometry& g = image.geometry;
  uint64_t end = image.file_size;
  if (editor.Mends(Problem::kQcowL2Short)) {
    for (size_t i = 0; i < image.l1.size(); ++i) {
      if (editor.state().fates[i] == TableFate::kWalked) {
        end = std::max(end, image.l1[i].value + g.l2_bytes);
      }
    }
  }
  if (editor.Mends(Problem::kQcowClusterShort)) {
    IMG_RETURN_IF_ERROR(ForEachEntry(image, editor.state().fates, [&](const EntryRef& ref) {
      EntryCheck check = CheckEntry(image, ref.entry);
      if (check.cut) end = std::max(end, ref.entry.raw + g.cluster_size);
      return Ok();
    }));
  }
  if (end > image.file_size) {
    IMG_RETURN_IF_ERROR(editor.bytes().SetSize(end));
    ++editor.outcome().changes;
  }
  return editor.Finish();
}

Result<PassOutcome> RelinkTables(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  std::vector<OrphanTable> orphans = editor.state().orphans;
  std::vector<std::pair<uint64_t, uint64_t>> free_runs;  // [first, last) empty slots
  std::vector<uint64_t> bounds{0};  // host offsets of the tables around the runs
  uint64_t next = 0, highest = 0;
  bool in_order = true;
  for (const L1Slot& slot : image.l1) {
    free_runs.push_back({next, slot.index});
    in_order = in_order && slot.value > highest;
    highest = slot.value;
    bounds.push_back(slot.value);
    next = slot.index + 1;
  }
  free_runs.push_back({next, image.geometry.l1_entries});
  bounds.push_back(UINT64_MAX);
  uint64_t relinked = 0;
  // Tables are handed out in the order of first writes. Where the others stand in guest order, and
  // exactly as many places are free between two of them as tables lie there, each has one place.
  for (size_t run = 0; in_order && run < free_runs.size(); ++run) {
    auto [first, last] = free_runs[run];
    auto begin = std::lower_bound(orphans.begin(), orphans.end(), bounds[run],
                                  [](const OrphanTable& o, uint64_t at) { return o.offset < at; });
    auto end = std::lower_bound(begin, orphans.end(), bounds[run + 1],
                                [](const OrphanTable& o, uint64_t at) { return o.offset < at; });
    if (last <= first || static_cast<uint64_t>(end - begin) != last - first) continue;
    for (; begin != end; ++begin, ++first) {
      IMG_RETURN_IF_ERROR(editor.SetL1(first, begin->offset));
      editor.Changed(image.GuestOf({first, begin->offset}), false);
      ++relinked;
    }
  }
  editor.outcome().orphans.relinked = relinked;
  editor.outcome().orphans.kept = orphans.size() - relinked;
  if (relinked < orphans.size()) {
    editor.Note(fmt::format("{} mapping tables fit more than one place and were left as they are",
                            orphans.size() - relinked));
  }
  return editor.Finish();
}

}  // namespace imgfsck::qcow1
