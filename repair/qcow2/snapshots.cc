// SPDX-License-Identifier: Apache-2.0
// The snapshot table: entries that damage hides are listed again, entries that make no sense go or
// are mended from what the names and the L1 tables show. No snapshot's clusters are ever freed
// here.
#include <fmt/format.h>

#include <algorithm>

#include "repair/qcow2/passes.h"
#include "repair/qcow2/snapshot_mend.h"
#include "repair/qcow2/snapshot_search.h"
#include "repair/qcow2/snapshot_table.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kSnapshotsProblems = {
    Problem::kQcow2SnapExtraShort,     Problem::kQcow2SnapExtraCap,
    Problem::kQcow2SnapL1Short,        Problem::kQcow2SnapL1Cap,
    Problem::kQcow2SnapL1Unaligned,    Problem::kQcow2SnapL1PastEof,
    Problem::kQcow2SnapUndercount,     Problem::kQcow2SnapPhantom,
    Problem::kQcow2SnapIdEmpty,        Problem::kQcow2SnapIdDuplicate,
    Problem::kQcow2SnapOrphanL1,       Problem::kQcow2SnapEntryOverrun,
    Problem::kQcow2SnapTableUnaligned, Problem::kQcow2SnapTablePastEof,
    Problem::kQcow2SnapCountCap,       Problem::kQcow2SnapTableCap,
    Problem::kQcow2SnapDataFile,       Problem::kQcow2SnapNameNul,
    Problem::kQcow2SnapVmstateRange,   Problem::kQcow2SnapTime,
    Problem::kQcow2MetaOverlap};
// Damage of the table that may hide snapshots: they are looked for in every mode.
constexpr Problem kHiding[] = {Problem::kQcow2SnapEntryOverrun, Problem::kQcow2SnapTablePastEof,
                               Problem::kQcow2HdrShapeOverlap};
// A dropped snapshot no longer shares the tables of the disk; a table of which a part could not be
// read is not given back.
constexpr Problem kSnapshotsMayAdd[] = {Problem::kQcow2L1Copied, Problem::kQcow2L2Copied,
                                        Problem::kQcow2RefcountLeak};

class SnapshotRepair : PassBody {
 public:
  explicit SnapshotRepair(const PassContext& context)
      : PassBody(context),
        search_(context.image, state_),
        entries_(image_.snapshots.entries),
        mender_(context, &editor_, &entries_, &outcome_) {}

  Result<PassOutcome> Run() {
    if (Unreachable()) {
      IMG_ASSIGN_OR_RETURN(const bool found, FindTable());
      if (found) return outcome_;
    } else if (!ReadAgain()) {
      FindHidden();
      mender_.MendFields();
      RelinkTable();
      IMG_RETURN_IF_ERROR(mender_.OwnTables());
      DropPhantoms();
      mender_.MendIds();
    }
    AttachOrphans();
    if (!reread_) IMG_RETURN_IF_ERROR(mender_.DropHopeless());
    IMG_RETURN_IF_ERROR(Write());
    return outcome_;
  }

 private:
  bool Unreachable() const {
    // (kNone: another table is where the header leads.)
    return image_.header.nb_snapshots > 0 && image_.snapshots.entries.empty() &&
           (!IsAligned(image_.header.snapshots_offset, image_.geometry.cluster_size) ||
            image_.header.snapshots_offset == 0 ||
            image_.header.snapshots_offset >= image_.file_size ||
            image_.snapshots.stop == SnapshotTable::Stop::kNone);
  }

  // The header leads to no table: the table is in the file, perhaps.
  Result<bool> FindTable() {
    auto found = search_.Find(image_.header.snapshots_offset, image_.header.nb_snapshots);
    if (!found) return false;
    IMG_RETURN_IF_ERROR(editor_.Write64(64, found->offset));
    IMG_RETURN_IF_ERROR(editor_.Write32(60, static_cast<uint32_t>(found->entries.size())));
    ++outcome_.changes;
    outcome_.particulars.push_back(
        fmt::format("the list of {} snapshots was found in the file", found->entries.size()));
    return true;
  }

  // A length in the table is damaged, so that what follows it was read from the wrong place.
  bool ReadAgain() {
    const SnapshotTable& table = image_.snapshots;
    const uint64_t count = std::min<uint64_t>(image_.header.nb_snapshots, kMaxSnapshots);
    if (table.stop != SnapshotTable::Stop::kOverrun &&
        table.stop != SnapshotTable::Stop::kPastEof) {
      return false;
    }
    FoundSnapshots found = search_.Read(table.offset, count);
    if (found.as_stored || found.entries.size() <= entries_.size()) return false;
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].id != found.entries[i].id ||
          entries_[i].l1_table_offset != found.entries[i].l1_table_offset) {
        DeclareLayer(i + 1);
      }
    }
    entries_ = std::move(found.entries);
    end_ = found.end;
    reread_ = true;
    ++outcome_.changes;
    outcome_.particulars.push_back(
        "a damaged length in the list of snapshots was put right; the snapshots after it are back");
    return true;
  }

  // Of a table that goes on behind the format's limit.
  void FindEnd() {
    uint64_t at = AlignUp(image_.snapshots.end, 8);
    for (uint64_t i = image_.snapshots.entries.size(); i < image_.header.nb_snapshots; ++i) {
      auto entry = ParseSnapshotAt(context_.image, at);
      if (!entry) break;
      end_ = at + entry->length;
      at = AlignUp(end_, 8);
    }
  }

  // Fewer snapshots than there were, for want of anything to make them of.
  bool GivesUp() const {
    const auto stop = image_.snapshots.stop;
    const bool unread = Unreachable() || stop == SnapshotTable::Stop::kOverrun ||
                        stop == SnapshotTable::Stop::kPastEof || stop == SnapshotTable::Stop::kCap;
    return unread && !phantoms_ && entries_.size() < image_.header.nb_snapshots &&
           image_.header.nb_snapshots <= kMaxSnapshots;
  }

  Status Write() {
    const bool cut = std::ranges::any_of(entries_, [](const Snapshot& s) {
      return s.extra_data_size > kMaxSnapshotExtra && !s.extra_guessed;
    });
    const bool all = context_.options.mode == RepairMode::kAll;
    if (outcome_.changes == 0 && entries_.size() == image_.header.nb_snapshots) return Ok();
    if (!all && (cut || GivesUp())) {
      outcome_.notes.push_back(
          cut ? "the list of snapshots is left: writing it would cut extra data of a newer version"
              : "the list of snapshots is left: what cannot be read of it would be given up");
      outcome_.changes = 0;
      return Ok();
    }
    ++outcome_.changes;
    if (image_.snapshots.stop == SnapshotTable::Stop::kCap) FindEnd();
    return WriteSnapshotTable(editor_, entries_, end_);
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
      outcome_.particulars.push_back(
          "a snapshot that the header no longer counted is listed again");
      entries_.push_back(std::move(*entry));
      ++outcome_.changes;
    }
  }

  void DropPhantoms() {
    if (!Should(Problem::kQcow2SnapPhantom)) return;
    while (!entries_.empty()) {
      const Snapshot& s = entries_.back();
      if (!s.id.empty() || !s.name.empty() || s.l1_table_offset != 0) break;
      DeclareLayer(entries_.size());
      entries_.pop_back();
      phantoms_ = true;
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
      if ((image_.snapshot_l1[i].entries == 0 && image_.L1Min(i + 1) > 0) ||
          (mender_.Place(i) != SnapshotMender::TablePlace::kOwn &&
           Should(Problem::kQcow2MetaOverlap))) {
        lost.push_back(i);
      }
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
      SetSnapshotDiskSize(&s, image_.header.size);
      ++outcome_.changes;
      outcome_.particulars.push_back(
          fmt::format("an L1 table that nothing listed is now snapshot {}", s.name));
      entries_.push_back(std::move(s));
    }
  }

  SnapshotSearch search_;
  std::vector<Snapshot> entries_;
  SnapshotMender mender_;
  uint64_t end_ = 0;
  bool reread_ = false, phantoms_ = false;
};

}  // namespace

const Pass kSnapshotPass{"snapshot-table",
                         30,
                         "list hidden snapshots again and mend the snapshot table",
                         [](const CheckReport& report, const RepairOptions& options) {
                           const bool hidden = options.mode != RepairMode::kLeaks &&
                                               std::ranges::any_of(kHiding, [&](Problem problem) {
                                                 return report.findings.Has(problem);
                                               });
                           return StateOf(report).walked &&
                                  (hidden || WantedAny(report, options, kSnapshotsProblems));
                         },
                         [](const PassContext& context) { return SnapshotRepair(context).Run(); },
                         {},
                         kSnapshotsMayAdd};

}  // namespace imgfsck::qcow2
