// SPDX-License-Identifier: Apache-2.0
// Makes clusters that damage orphaned reachable: an internal snapshot `lost+found` maps them, one
// after another from guest offset 0, so that any QEMU can read them. The clusters stay where they
// are and keep their count; only tables are new. The snapshot has date 0: repairs are
// deterministic.
#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow2/entry.h"
#include "repair/qcow2/luks_search.h"
#include "repair/qcow2/passes.h"
#include "repair/qcow2/snapshot_table.h"
#include "repair/qcow2/superseded.h"

namespace imgfsck::qcow2 {
namespace {

// Damage that leaves clusters behind which belong to somebody.
constexpr Problem kExplains[] = {
    Problem::kQcow2L1EntryReserved,    Problem::kQcow2L1EntryUnaligned,
    Problem::kQcow2L1EntryPastEof,     Problem::kQcow2L1EntryDuplicate,
    Problem::kQcow2L2Implausible,      Problem::kQcow2L2EntryReserved,
    Problem::kQcow2L2EntryUnaligned,   Problem::kQcow2L2EntryPastEof,
    Problem::kQcow2L2OffsetZeroCopied, Problem::kQcow2L2DataCrosslink,
    Problem::kQcow2L2DataOnMetadata,   Problem::kQcow2ComprPastEof,
    Problem::kQcow2ComprOnStd,         Problem::kQcow2L2EmptyWithLeaks,
    Problem::kQcow2ComprUndecodable,   Problem::kQcow2ComprOverlap,
    Problem::kQcow2SnapL2Structure,    Problem::kQcow2SnapEntryOverrun,
    Problem::kQcow2SnapTablePastEof,   Problem::kQcow2SnapL1PastEof,
    Problem::kQcow2SnapL1Unaligned,    Problem::kQcow2MetaOverlap,
    Problem::kQcow2RbOverlap,          Problem::kQcow2ExtOverrun,
    Problem::kQcow2SnapTableUnaligned, Problem::kQcow2SnapTableCap,
    Problem::kQcow2SnapCountCap,       Problem::kQcow2SnapL1Short,
    Problem::kQcow2ExtCryptoOrphan,    Problem::kQcow2BitmapExtLength,
    Problem::kQcow2BitmapCount,        Problem::kQcow2BitmapDirUnaligned,
    Problem::kQcow2BitmapDirSize,      Problem::kQcow2BitmapName,
    Problem::kQcow2BitmapExtra,        Problem::kQcow2BitmapTableOffset,
    Problem::kQcow2BitmapTableSize,    Problem::kQcow2BitmapTentryReserved,
    Problem::kQcow2BitmapTentryOffset};

bool Explained(const CheckReport& report) {
  return std::ranges::any_of(kExplains, [&](Problem p) { return report.findings.Has(p); });
}

// Holes in the mapping that only --repair=all fills, with what lies about. Once a snapshot has it,
// it does not lie about any more.
constexpr Problem kHoles[] = {Problem::kQcow2L1Unaligned,      Problem::kQcow2L1Short,
                              Problem::kQcow2L1PastEof,        Problem::kQcow2L1OffsetZero,
                              Problem::kQcow2L1EntryUnaligned, Problem::kQcow2L1EntryPastEof,
                              Problem::kQcow2L2Implausible,    Problem::kQcow2L2EmptyWithLeaks,
                              Problem::kQcow2L2EntryUnaligned, Problem::kQcow2L2EntryPastEof,
                              Problem::kQcow2L1EntryReserved,  Problem::kQcow2SnapL1PastEof,
                              Problem::kQcow2SnapL1Unaligned,  Problem::kQcow2MetaOverlap};

bool WaitsForAll(const PassContext& context) {
  return context.options.mode == RepairMode::kSafe &&
         context.options.orphans == OrphanPolicy::kDefault &&
         std::ranges::any_of(kHoles, [&](Problem p) { return context.report.findings.Has(p); });
}

}  // namespace

bool KeepsInSnapshot(const PassContext& context) {
  const CheckReport& first = context.first != nullptr ? *context.first : context.report;
  const Image& image = *StateOf(context.report).image;
  bool asked = context.options.orphans == OrphanPolicy::kSnapshot ||
               (context.options.orphans == OrphanPolicy::kDefault && Explained(first));
  return asked && !WaitsForAll(context) && context.options.mode != RepairMode::kLeaks &&
         !image.has_data_file() && image.header.crypt_method != kCryptAes;
}

namespace {

bool LostFoundWanted(const CheckReport& report, const RepairOptions& options) {
  const CheckState& state = StateOf(report);
  return options.mode != RepairMode::kLeaks && state.counts_compared && !state.leaks.empty() &&
         state.leaks_complete && !state.image->has_data_file() &&
         (options.orphans == OrphanPolicy::kDefault || options.orphans == OrphanPolicy::kSnapshot);
}

class LostFound : PassBody {
 public:
  explicit LostFound(const PassContext& context)
      : PassBody(context), judge_(context.image, state_) {}

  Result<PassOutcome> Run() {
    const CheckReport& first = context_.first != nullptr ? *context_.first : context_.report;
    if (context_.options.orphans == OrphanPolicy::kDefault && !Explained(first)) {
      outcome_.notes.push_back(
          "leaked clusters that hold data which nothing else in the image holds are kept "
          "(--orphans snapshot makes them readable, --orphans free gives them up)");
      return outcome_;
    }
    if (LuksLost(image_)) return outcome_;  // the leaks pass says why
    if (WaitsForAll(context_)) {
      outcome_.notes.push_back(
          "leaked clusters that hold data are kept where they are: --repair=all may find their "
          "place "
          "on the disk (--orphans snapshot makes them readable without that)");
      return outcome_;
    }
    if (image_.header.crypt_method == kCryptAes) {
      outcome_.notes.push_back(
          "unreferenced clusters are left as they are: without their place on the disk this "
          "encryption cannot read them");
      return outcome_;
    }
    if (image_.snapshots.entries.size() != image_.header.nb_snapshots) {
      outcome_.notes.push_back(
          "unreferenced clusters are left as they are: the list of snapshots has to be mended "
          "first");
      return outcome_;
    }
    IMG_RETURN_IF_ERROR(FindOrphans());
    if (orphans_.empty()) return outcome_;
    uint64_t size = std::max(image_.header.size, orphans_.size() << g_.cluster_bits);
    uint64_t tables = g_.MinL1Entries(size);
    const SnapshotTable& table = image_.snapshots;
    if (tables * 8 > kMaxL1Bytes || table.entries.size() >= kMaxSnapshots ||
        table.end - table.offset + 128 > kMaxSnapshotTableBytes) {
      outcome_.notes.push_back("unreferenced clusters are left: a snapshot cannot hold them all");
      return outcome_;
    }
    IMG_RETURN_IF_ERROR(WriteSnapshot(size, tables));
    return outcome_;
  }

 private:
  Status FindOrphans() {
    for (const CountRun& run : state_.leaks) {
      if (run.computed != 0) continue;
      for (uint64_t c = run.cluster; c < run.cluster + run.length; ++c) {
        IMG_ASSIGN_OR_RETURN(auto content, judge_.Judge(c));
        bool valuable = content == OrphanJudge::Content::kValuable ||
                        content == OrphanJudge::Content::kUnreadable;
        if (!valuable) continue;
        orphans_.push_back(c);
        if (run.stored != 1) IMG_RETURN_IF_ERROR(editor_.SetCount(c, 1));
      }
    }
    return Ok();
  }

  std::string FreeName() const {
    std::string name = "lost+found";
    for (int n = 2; std::ranges::any_of(image_.snapshots.entries,
                                        [&](const Snapshot& s) { return s.name == name; });
         ++n) {
      name = fmt::format("lost+found.{}", n);
    }
    return name;
  }

  Status WriteSnapshot(uint64_t size, uint64_t tables) {
    ByteVector l1(AlignUp(tables * 8, g_.cluster_size)), l2(g_.cluster_size);
    for (uint64_t first = 0; first < orphans_.size(); first += g_.l2_entries) {
      std::fill(l2.begin(), l2.end(), uint8_t{0});
      uint64_t count = std::min(g_.l2_entries, orphans_.size() - first);
      for (uint64_t i = 0; i < count; ++i) {
        uint64_t all = g_.extended_l2 ? 0xFFFFFFFF : 0;
        StoreEntry(g_, l2, i, {orphans_[first + i] << g_.cluster_bits, all});
      }
      IMG_ASSIGN_OR_RETURN(uint64_t offset, editor_.Allocate());
      IMG_RETURN_IF_ERROR(editor_.Write(offset, l2));
      PutBe(l1, 8 * (first / g_.l2_entries), offset);
    }
    IMG_ASSIGN_OR_RETURN(uint64_t l1_offset, editor_.Allocate(g_.ClustersOf(tables * 8)));
    IMG_RETURN_IF_ERROR(editor_.Write(l1_offset, l1));
    std::vector<Snapshot> entries = image_.snapshots.entries;
    Snapshot s;
    s.l1_table_offset = l1_offset;
    s.l1_size = static_cast<uint32_t>(tables);
    s.id = NextSnapshotId(entries);
    s.name = FreeName();
    SetSnapshotDiskSize(&s, size);
    entries.push_back(s);
    IMG_RETURN_IF_ERROR(WriteSnapshotTable(editor_, entries, 0));
    outcome_.changes = orphans_.size();
    outcome_.orphans.kept = orphans_.size();
    outcome_.orphans.where = s.name;
    outcome_.particulars.push_back(fmt::format(
        "{} that nothing referred to can be read in the snapshot \"{}\" "
        "(applying that snapshot would replace the disk: read it, do not apply it)",
        orphans_.size() == 1 ? "1 cluster" : fmt::format("{} clusters", orphans_.size()), s.name));
    return Ok();
  }

  OrphanJudge judge_;
  std::vector<uint64_t> orphans_;
};

}  // namespace

const Pass kLostFoundPass{"lost-found", 78, "keep orphaned clusters in a snapshot named lost+found",
                          LostFoundWanted,
                          [](const PassContext& context) { return LostFound(context).Run(); }};

}  // namespace imgfsck::qcow2
