// SPDX-License-Identifier: Apache-2.0
// The snapshot table: entries that damage hides are listed again, entries that make no sense go or
// are mended from what the names and the L1 tables show. No snapshot's clusters are ever freed here.
#include <fmt/format.h>

#include <algorithm>

#include "repair/qcow2/passes.h"
#include "repair/qcow2/snapshot_table.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kProblems = {
    Problem::kQcow2SnapExtraShort, Problem::kQcow2SnapExtraCap,   Problem::kQcow2SnapL1Short,
    Problem::kQcow2SnapL1Cap,      Problem::kQcow2SnapUndercount, Problem::kQcow2SnapPhantom,
    Problem::kQcow2SnapIdEmpty,    Problem::kQcow2SnapIdDuplicate, Problem::kQcow2SnapOrphanL1,
    Problem::kQcow2SnapEntryOverrun, Problem::kQcow2SnapTablePastEof, Problem::kQcow2SnapCountCap,
    Problem::kQcow2SnapTableCap};

class SnapshotRepair {
 public:
  explicit SnapshotRepair(const PassContext& context)
      : context_(context), state_(StateOf(context.report)), image_(*state_.image),
        editor_(context.image, state_), entries_(image_.snapshots.entries) {}

  Result<PassOutcome> Run() {
    FindHidden();
    MendEntries();
    RelinkTable();
    DropPhantoms();
    MendIds();
    AttachOrphans();
    if (outcome_.changes > 0 || entries_.size() != image_.header.nb_snapshots) {
      IMG_RETURN_IF_ERROR(WriteSnapshotTable(editor_, entries_, end_));
      ++outcome_.changes;
    }
    return outcome_;
  }

 private:
  bool Should(Problem problem) const {
    return context_.report.findings.Has(problem) && Allowed(problem, context_.options);
  }

  // Entries behind the last one that the header counts.
  void FindHidden() {
    if (!Should(Problem::kQcow2SnapUndercount)) return;
    uint64_t at = AlignUp(image_.snapshots.end, 8);
    while (entries_.size() < kMaxSnapshots) {
      auto entry = ParseSnapshotAt(*image_.source, at);
      if (!entry || entry->id.empty() || entry->l1_table_offset == 0 || entry->l1_size == 0 ||
          !IsAligned(entry->l1_table_offset, image_.geometry.cluster_size) ||
          entry->l1_table_offset >= image_.file_size ||
          StoredCount(image_, entry->l1_table_offset >> image_.geometry.cluster_bits) == 0) {
        break;
      }
      at = AlignUp(at + entry->length, 8);
      end_ = at;
      outcome_.particulars.push_back("a snapshot that the header no longer counted is listed again");
      entries_.push_back(std::move(*entry));
      ++outcome_.changes;
    }
  }

  void PutExtra(Snapshot* s, uint64_t disk_size) {
    SetSnapshotDiskSize(s, disk_size);
    ++outcome_.changes;
  }

  void MendEntries() {
    for (size_t i = 0; i < entries_.size(); ++i) {
      Snapshot& s = entries_[i];
      if (s.extra_data_size > kMaxSnapshotExtra && Should(Problem::kQcow2SnapExtraCap)) {
        ++outcome_.changes;  // written back with the extra data that fits
      }
      if (image_.header.is_v3() && s.extra.size() < kMinSnapshotExtraV3 &&
          Should(Problem::kQcow2SnapExtraShort)) {
        PutExtra(&s, image_.header.size);
      }
      if (i >= image_.snapshot_l1.size()) continue;
      uint64_t needed = image_.L1Min(i + 1);
      bool short_l1 = s.l1_size < needed && Should(Problem::kQcow2SnapL1Short);
      bool huge_l1 = uint64_t{s.l1_size} * 8 > kMaxL1Bytes && Should(Problem::kQcow2SnapL1Cap);
      if ((short_l1 || huge_l1) && image_.snapshot_l1[i].entries >= needed && needed > 0) {
        s.l1_size = static_cast<uint32_t>(needed);
        ++outcome_.changes;
      }
    }
  }

  void DropPhantoms() {
    if (!Should(Problem::kQcow2SnapPhantom)) return;
    while (!entries_.empty()) {
      const Snapshot& s = entries_.back();
      if (!s.id.empty() || !s.name.empty() || s.l1_table_offset != 0) break;
      DeclareLayer(entries_.size());
      entries_.pop_back();
      ++outcome_.changes;
    }
  }

  // A layer that is no longer there under its name.
  void DeclareLayer(size_t layer) {
    if (layer >= image_.LayerCount()) return;
    outcome_.changed.push_back(
        {image_.LayerName(layer), MakeGuestRange(0, image_.LayerSize(layer))});
  }

  std::vector<uint64_t> OrphanTables() const {
    std::vector<uint64_t> found;
    for (const Finding& f : context_.report.findings.kept()) {
      if (f.problem == Problem::kQcow2SnapOrphanL1 && f.host) found.push_back(f.host->offset.value);
    }
    return found;
  }

  // One snapshot whose table cannot be reached, and one table that nothing reaches.
  void RelinkTable() {
    std::vector<uint64_t> orphans = OrphanTables();
    std::vector<size_t> lost;
    for (size_t i = 0; i < image_.snapshot_l1.size(); ++i) {
      if (image_.snapshot_l1[i].entries == 0 && image_.L1Min(i + 1) > 0) lost.push_back(i);
    }
    if (orphans.size() != 1 || lost.size() != 1 || !Should(Problem::kQcow2SnapOrphanL1)) return;
    uint64_t needed = image_.L1Min(lost[0] + 1);
    if (needed * 8 > image_.geometry.cluster_size) return;
    Snapshot& s = entries_[lost[0]];
    s.l1_table_offset = orphans[0];
    if (s.l1_size < needed || uint64_t{s.l1_size} * 8 > image_.geometry.cluster_size) {
      s.l1_size = static_cast<uint32_t>(needed);
    }
    DeclareLayer(lost[0] + 1);
    outcome_.particulars.push_back("a snapshot's lost L1 table was found and linked again");
    ++outcome_.changes;
  }

  void MendIds() {
    for (size_t i = 0; i < entries_.size(); ++i) {
      bool twin = std::any_of(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(i),
                              [&](const Snapshot& s) { return s.id == entries_[i].id; });
      bool mend = entries_[i].id.empty() ? Should(Problem::kQcow2SnapIdEmpty)
                                         : twin && Should(Problem::kQcow2SnapIdDuplicate);
      if (!mend) continue;
      DeclareLayer(i + 1);
      entries_[i].id = NextSnapshotId(entries_);
      ++outcome_.changes;
    }
  }

  // L1 tables that are counted, lead to counted tables and belong to nobody.
  void AttachOrphans() {
    // While the active disk's own table is missing, an orphan may be that.
    bool active_lost = image_.active.entries == 0 && image_.L1Min(0) > 0;
    if (!Should(Problem::kQcow2SnapOrphanL1) || image_.has_data_file() || active_lost) return;
    for (uint64_t offset : OrphanTables()) {
      bool listed = std::ranges::any_of(
          entries_, [&](const Snapshot& s) { return s.l1_table_offset == offset; });
      uint64_t needed = image_.L1Min(0);
      if (listed || needed * 8 > image_.geometry.cluster_size) continue;
      Snapshot s;
      s.l1_table_offset = offset;
      s.l1_size = static_cast<uint32_t>(needed);
      s.id = NextSnapshotId(entries_);
      s.name = fmt::format("recovered-{}", s.id);
      PutExtra(&s, image_.header.size);
      outcome_.particulars.push_back(
          fmt::format("an L1 table that nothing listed is now snapshot {}", s.name));
      entries_.push_back(std::move(s));
    }
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  Editor editor_;
  std::vector<Snapshot> entries_;
  uint64_t end_ = 0;
  PassOutcome outcome_;
};

}  // namespace

const Pass kSnapshotPass{"snapshot-table", 30,
                         "list hidden snapshots again and mend the snapshot table",
                         [](const CheckReport& report, const RepairOptions& options) {
                           return StateOf(report).walked && WantedAny(report, options, kProblems);
                         },
                         [](const PassContext& context) { return SnapshotRepair(context).Run(); }};

}  // namespace imgfsck::qcow2
