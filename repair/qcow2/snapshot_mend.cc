// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/snapshot_mend.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "formats/qcow2/metadata.h"
#include "repair/qcow2/snapshot_table.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint32_t kNanoseconds = 1'000'000'000;

}  // namespace

SnapshotMender::SnapshotMender(const PassContext& context, Editor* editor,
                               std::vector<Snapshot>* entries, PassOutcome* outcome)
    : context_(context),
      state_(StateOf(context.report)),
      image_(*state_.image),
      editor_(*editor),
      entries_(*entries),
      outcome_(*outcome) {}

void SnapshotMender::MendFields() {
  for (size_t i = 0; i < entries_.size(); ++i) {
    Snapshot& s = entries_[i];
    // Written back with the extra data that fits.
    bool changed = s.extra_data_size > kMaxSnapshotExtra && Should(Problem::kQcow2SnapExtraCap);
    if (image_.header.is_v3() && s.extra.size() < kMinSnapshotExtraV3 &&
        Should(Problem::kQcow2SnapExtraShort)) {
      SetSnapshotDiskSize(&s, image_.header.size);
      changed = true;
    }
    if (i < image_.snapshot_l1.size()) changed |= MendL1Size(i);
    changed |= MendText(&s);
    outcome_.changes += changed;
  }
}

// The number of entries was damaged, not the table.
bool SnapshotMender::MendL1Size(size_t i) {
  Snapshot& s = entries_[i];
  const L1Location& l1 = image_.snapshot_l1[i];
  const uint64_t needed = image_.L1Min(i + 1);
  const bool too_short = s.l1_size < needed && Should(Problem::kQcow2SnapL1Short);
  const bool too_long = uint64_t{s.l1_size} * 8 > kMaxL1Bytes && Should(Problem::kQcow2SnapL1Cap);
  if ((!too_short && !too_long) || needed == 0 || l1.offset == 0) return false;
  if (l1.entries >= needed || CanExtend(i, needed)) {
    s.l1_size = static_cast<uint32_t>(needed);
    return true;
  }
  // What the table covers is kept; its end is gone.
  if (!too_short || s.l1_size == 0 || context_.options.mode != RepairMode::kAll) return false;
  const uint64_t covered = s.l1_size * image_.geometry.l2_span, size = image_.LayerSize(i + 1);
  if (covered >= size) return false;
  SetSnapshotDiskSize(&s, covered);
  const LayerRange range{image_.LayerName(i + 1), MakeGuestRange(covered, size - covered)};
  outcome_.changed.push_back(range);
  outcome_.lost.push_back(range);
  return true;
}

// The clusters behind the table's first are counted, nobody's, and hold table offsets.
bool SnapshotMender::CanExtend(size_t i, uint64_t needed) const {
  const Geometry& g = image_.geometry;
  const L1Location& l1 = image_.snapshot_l1[i];
  const uint64_t known = AlignUp(std::max<uint64_t>(l1.bytes(), 8), g.cluster_size);
  if (!state_.counts_compared || !RangeFits(l1.offset, needed * 8, image_.file_size)) return false;
  for (uint64_t at = l1.offset + known; at < l1.offset + needed * 8; at += g.cluster_size) {
    const uint64_t cluster = at >> g.cluster_bits;
    if (state_.claims().Count(cluster) != 0 || StoredCount(image_, cluster) != 1) return false;
    ByteVector table(g.cluster_size);
    if (!editor_.Read(at, table)) return false;
    for (size_t k = 0; k < table.size(); k += 8) {
      const uint64_t entry = LoadBe<uint64_t>(&table[k]), offset = entry & kOffsetMask;
      if ((entry & kL1Reserved) != 0 || !IsAligned(offset, g.cluster_size) ||
          offset >= image_.file_size) {
        return false;
      }
    }
  }
  return true;
}

// Only by --fix: zeros in names, a machine state that no table covers, an impossible time.
bool SnapshotMender::MendText(Snapshot* s) {
  const Snapshot before = *s;
  if (Should(Problem::kQcow2SnapNameNul)) {
    for (std::string* text : {&s->id, &s->name}) {
      text->resize(std::min(text->find('\0'), text->size()));
    }
  }
  const uint64_t needed = image_.geometry.MinL1Entries(s->disk_size().value_or(image_.header.size));
  const uint64_t room =
      s->l1_size < needed ? 0 : SaturatingMul(s->l1_size - needed, image_.geometry.l2_span);
  if (s->vm_state_size() > room && Should(Problem::kQcow2SnapVmstateRange)) {
    s->vm_state_size_32 = 0;
    if (s->extra.size() >= 8) std::fill_n(s->extra.begin(), 8, uint8_t{0});
  }
  if (s->date_nsec >= kNanoseconds && Should(Problem::kQcow2SnapTime)) {
    s->date_nsec = kNanoseconds - 1;
  }
  return s->id != before.id || s->name != before.name || s->extra != before.extra ||
         s->vm_state_size_32 != before.vm_state_size_32 || s->date_nsec != before.date_nsec;
}

void SnapshotMender::DeclareLayer(size_t i, bool lost) {
  if (i + 1 >= image_.LayerCount()) return;
  const LayerRange range{image_.LayerName(i + 1), MakeGuestRange(0, image_.LayerSize(i + 1))};
  outcome_.changed.push_back(range);
  if (lost) outcome_.lost.push_back(range);
}

void SnapshotMender::MendIds() {
  for (size_t i = 0; i < entries_.size(); ++i) {
    const bool twin = std::any_of(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(i),
                                  [&](const Snapshot& s) { return s.id == entries_[i].id; });
    const bool mend = entries_[i].id.empty() ? Should(Problem::kQcow2SnapIdEmpty)
                                             : twin && Should(Problem::kQcow2SnapIdDuplicate);
    if (!mend) continue;
    entries_[i].id = NextSnapshotId(entries_);
    ++outcome_.changes;
  }
}

SnapshotMender::TablePlace SnapshotMender::Place(size_t i) const {
  const L1Location& l1 = image_.snapshot_l1[i];
  if (l1.offset == 0 || l1.entries == 0) return TablePlace::kOwn;
  const HostRange own = MakeHostRange(l1.offset, l1.bytes());
  auto place = TablePlace::kOwn;
  ForEachMeta(image_, [&](const MetaRegion& region) {
    if (!region.host.Overlaps(own) || region.kind == MetaKind::kBitmapData) return;
    if (region.kind == MetaKind::kSnapshotL1 && region.index >= i) return;
    const bool table = region.kind == MetaKind::kL1 || region.kind == MetaKind::kSnapshotL1;
    if (!table || region.host.offset != own.offset) {
      place = TablePlace::kForeign;
    } else if (place == TablePlace::kOwn) {
      place = TablePlace::kShared;
    }
  });
  return place;
}

Status SnapshotMender::OwnTables() {
  if (!Should(Problem::kQcow2MetaOverlap)) return Ok();
  for (size_t i = 0; i < std::min(entries_.size(), image_.snapshot_l1.size()); ++i) {
    const L1Location& l1 = image_.snapshot_l1[i];
    if (entries_[i].l1_table_offset != l1.offset || Place(i) != TablePlace::kShared) continue;
    ByteVector table(l1.bytes());
    IMG_RETURN_IF_ERROR(editor_.Read(l1.offset, table));
    IMG_ASSIGN_OR_RETURN(const uint64_t target,
                         editor_.Allocate(image_.geometry.ClustersOf(l1.bytes())));
    IMG_RETURN_IF_ERROR(editor_.Write(target, table));
    entries_[i].l1_table_offset = target;
    ++outcome_.changes;
    outcome_.particulars.push_back(
        fmt::format("the snapshot \"{}\" has an L1 table of its own now; it shared one",
                    Printable(entries_[i].name)));
  }
  return Ok();
}

Status SnapshotMender::DropHopeless() {
  if (context_.options.mode != RepairMode::kAll) return Ok();
  for (size_t i = std::min(entries_.size(), image_.snapshot_l1.size()); i-- > 0;) {
    const bool unreachable =
        image_.snapshot_l1[i].entries == 0 && image_.L1Min(i + 1) > 0 &&
        entries_[i].l1_table_offset == image_.snapshot_l1[i].offset &&
        (Should(Problem::kQcow2SnapL1Unaligned) || Should(Problem::kQcow2SnapL1PastEof) ||
         Should(Problem::kQcow2SnapL1Short));
    const bool foreign = entries_[i].l1_table_offset == image_.snapshot_l1[i].offset &&
                         Should(Problem::kQcow2MetaOverlap) && Place(i) == TablePlace::kForeign;
    const bool lost = unreachable || foreign;
    if (!lost && !Should(Problem::kQcow2SnapDataFile)) continue;
    if (!lost) IMG_RETURN_IF_ERROR(GiveBack(i));
    DeclareLayer(i, true);
    outcome_.particulars.push_back(
        fmt::format("the snapshot \"{}\" was dropped: {}", Printable(entries_[i].name),
                    lost ? "its tables are gone" : "an image with a data file cannot have any"));
    entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(i));
    ++outcome_.changes;
  }
  return Ok();
}

// The tables of a snapshot of an image whose data is in another file: nothing else is in this one.
Status SnapshotMender::GiveBack(size_t i) {
  const Geometry& g = image_.geometry;
  const L1Location& l1 = image_.snapshot_l1[i];
  if (!state_.counts_compared || l1.entries == 0) return Ok();
  ByteVector raw(l1.bytes());
  IMG_RETURN_IF_ERROR(editor_.Read(l1.offset, raw));
  std::map<uint64_t, uint64_t> counts;
  auto drop = [&](uint64_t offset) {
    if (offset == 0 || !IsAligned(offset, g.cluster_size) || offset >= image_.file_size) return;
    const uint64_t cluster = offset >> g.cluster_bits;
    auto known = counts.try_emplace(cluster, StoredCount(image_, cluster)).first;
    if (known->second > 0) --known->second;
  };
  for (size_t k = 0; k < raw.size(); k += 8) drop(LoadBe<uint64_t>(&raw[k]) & kOffsetMask);
  for (uint64_t at = 0; at < l1.bytes(); at += g.cluster_size) drop(l1.offset + at);
  for (const auto& [cluster, count] : counts) {
    IMG_RETURN_IF_ERROR(editor_.SetCount(cluster, count));
  }
  return Ok();
}

}  // namespace imgfsck::qcow2
