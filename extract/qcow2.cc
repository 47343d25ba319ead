// SPDX-License-Identifier: Apache-2.0
// Of a qcow2 image: every structure that is named, whatever damage did to it; of clusters that
// nothing claims, those that look like metadata. Other unclaimed clusters that are not zero get a
// mark, because a check asks whether they hold anything. Key material stays out.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/state.h"
#include "base/interrupt.h"
#include "extract/qcow2_names.h"
#include "extract/qcow2_tables.h"
#include "extract/selection.h"
#include "formats/common/stored.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck {
namespace {

using namespace qcow2;

constexpr uint64_t kStrayHead = 4096;  // bytes kept of a header that makes no sense

class Qcow2Selection {
 public:
  explicit Qcow2Selection(Selection& selection)
      : selection_(selection),
        state_(StateOf(selection.report)),
        image_(*state_.image),
        names_(selection, state_) {}

  Status Run() {
    if (!image_.walkable) return KeepBlind();
    selection_.copy.Keep(0, image_.first_cluster.size());
    ForEachMeta(image_, [&](const MetaRegion& region) { KeepRegion(region); });
    IMG_RETURN_IF_ERROR(KeepTables());
    IMG_RETURN_IF_ERROR(LookAtUnclaimed());
    KeepImplausible();
    MarkSnapshotStop();
    NoteShared();
    names_.RedactListed();
    return Ok();
  }

 private:
  const Geometry& g() const { return image_.geometry; }

  void KeepRegion(const MetaRegion& region) {
    uint64_t begin = region.host.offset.value, end = region.host.end();
    if (region.kind == MetaKind::kSnapshotTable || region.kind == MetaKind::kBitmapDirectory) {
      end = AlignUp(end, g().cluster_size);  // perhaps with entries that cannot be taken apart
    }
    if (region.kind == MetaKind::kLuks) end = begin + kLuksHeaderSize;
    selection_.copy.Keep(begin, end - begin);
    if (region.kind == MetaKind::kLuks) return;
    // The rest of the last cluster: more of the same table, or nothing of ours.
    uint64_t rest = AlignUp(end, 8), stop = AlignUp(end, g().cluster_size);
    if (rest >= stop) return;
    ByteVector bytes(stop - rest);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, rest, bytes, &bad);
    if (!AllZero(bytes)) KeepIfMetadata(rest, bytes);
  }

  Status KeepTables() {
    std::vector<TableRef> tables;
    std::vector<HostRange> bad;
    const Columns& columns = *state_.columns;
    for (uint64_t begin = 0; begin < columns.count(); begin += columns.ChunkSize()) {
      IMG_RETURN_IF_ERROR(CheckStop());
      columns.Read(begin, std::min(begin + columns.ChunkSize(), columns.count()), &tables, nullptr,
                   &bad);
      for (const TableRef& table : tables) KeepTable(table.offset);
    }
    return Ok();
  }

  void KeepTable(uint64_t offset) {
    ByteVector bytes(g().cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, offset, bytes, &bad);
    if (Implausible(image_, bytes) && !IsRefcountBlock(image_, bytes)) {
      implausible_.push_back(offset);
    } else {
      selection_.copy.Keep(offset, bytes.size());
    }
  }

  // Where no table stands, it is guest data perhaps: what makes no sense goes.
  void KeepImplausible() {
    ByteVector bytes(g().cluster_size);
    for (uint64_t offset : implausible_) {
      std::vector<HostRange> bad;
      ReadTolerant(*image_.source, offset, bytes, &bad);
      selection_.copy.KeepCleaned(offset, bytes, WithoutNonsense(image_, bytes), g().l2_entry_size);
    }
  }

  // True when it was kept, wholly or in part.
  bool KeepIfMetadata(uint64_t offset, Bytes bytes) {
    if (IsTable(image_, bytes) || IsRefcountBlock(image_, bytes)) {
      selection_.copy.Keep(offset, bytes.size());
      return true;
    }
    if (auto mended = MendedTable(image_, bytes)) {
      selection_.copy.Replace(offset, *mended);
      return true;
    }
    if (IsLuksHeader(bytes)) {
      selection_.copy.Keep(offset, kLuksHeaderSize);
      names_.RedactLuks(offset);
      return true;
    }
    auto snapshots = SnapshotsAt(image_, offset);
    if (!snapshots.empty()) {
      selection_.copy.Keep(
          offset, AlignUp(snapshots.back().host_offset + snapshots.back().length, 8) - offset);
      for (const Snapshot& s : snapshots) names_.Redact(s);
      return true;
    }
    auto bitmaps = BitmapsAt(image_, AlignDown(offset, g().cluster_size) == offset ? offset : 0);
    if (bitmaps.empty()) return false;
    selection_.copy.Keep(offset, bitmaps.back().host_offset + bitmaps.back().length - offset);
    for (const Bitmap& b : bitmaps) names_.Redact(b);
    return true;
  }

  Status LookAtUnclaimed() {
    const ClaimMap& claims = state_.claims();
    uint64_t size = g().cluster_size, clusters = claims.clusters();
    ByteVector bytes(size);
    for (uint64_t at = 0; at < image_.file_size;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      auto extent = image_.source->ExtentAt(at);
      uint64_t end = extent && extent->length > 0 ? at + extent->length : image_.file_size;
      if (extent && extent->hole) {
        at = end;
        continue;
      }
      for (uint64_t c = at >> g().cluster_bits; c < std::min(clusters, g().ClustersOf(end)); ++c) {
        if (claims.IsUsed(c)) continue;
        std::vector<HostRange> bad;
        ReadTolerant(*image_.source, c << g().cluster_bits, bytes, &bad);
        if (AllZero(bytes)) continue;
        if (!KeepIfMetadata(c << g().cluster_bits, bytes)) {
          selection_.copy.Mark(c << g().cluster_bits, size);
        }
        if (c % 1024 == 0) {
          IMG_RETURN_IF_ERROR(CheckStop());
          selection_.Progress(c << g().cluster_bits);
        }
      }
      at = end;
    }
    return Ok();
  }

  // A count too high makes a reader take guest data for an entry of the snapshot table, until one
  // does not fit into the file. What stands there instead does not fit either.
  void MarkSnapshotStop() {
    const SnapshotTable& table = image_.snapshots;
    if (table.stop != SnapshotTable::Stop::kOverrun) return;
    ByteVector misfit(40);
    std::fill_n(misfit.begin() + 12, 4, uint8_t{0xFF});  // lengths of id and name
    std::fill_n(misfit.begin() + 36, 4, uint8_t{0xFF});  // of the extra data
    for (uint64_t i = 0; i < misfit.size(); ++i) {
      const uint64_t at = table.stopped_offset + i;
      if (state_.claims().IsMeta(at >> g().cluster_bits)) continue;
      selection_.copy.Replace(at, Bytes(misfit).subspan(i, 1));
    }
  }

  // Where damage made one cluster both: as metadata it is kept.
  void NoteShared() {
    if (state_.recovery && !state_.reconstructed) {
      selection_.notes.push_back(
          "the header contradicts the tables: where it leads was copied and may hold guest data");
    }
    uint64_t shared = 0;
    state_.claims().ForEachConflict([&](uint64_t c) {
      const ClaimMap& claims = state_.claims();
      shared += claims.IsMeta(c) && (claims.IsData(c) || claims.IsCompressed(c));
    });
    if (shared == 0) return;
    selection_.notes.push_back(
        fmt::format("{} clusters belong to metadata and, by the damage, to the guest's disk as "
                    "well: they were copied and may hold guest data",
                    shared));
  }

  // Without the header nobody knows what is where: what can be a piece of a table is kept.
  Status KeepBlind() {
    selection_.copy.Keep(0, kStrayHead);
    names_.RedactHead(kStrayHead);
    Image guess;
    guess.source = image_.source;
    guess.file_size = image_.file_size;
    guess.geometry = Geometry::Make(kMinClusterBits, false, 4);
    guess.refcounts_usable = true;
    std::vector<HostRange> bad;
    auto visit = [&](uint64_t offset, Bytes piece) -> Result<bool> {
      selection_.Progress(offset);
      for (uint64_t at = 0; at < piece.size(); at += kSector) {
        Bytes sector = piece.subspan(at, std::min<uint64_t>(kSector, piece.size() - at));
        if (AllZero(sector)) continue;
        if (IsTable(guess, sector) || IsRefcountBlock(guess, sector)) {
          selection_.copy.Keep(offset + at, sector.size());
        }
      }
      return true;
    };
    return ForEachStoredPiece(*image_.source, std::min(kStrayHead, image_.file_size),
                              image_.file_size, &bad, visit);
  }

  Selection& selection_;
  const CheckState& state_;
  const Image& image_;
  Qcow2Names names_;
  std::vector<uint64_t> implausible_;  // L2 tables by their reference alone
};

}  // namespace

Status SelectQcow2(Selection& selection) { return Qcow2Selection(selection).Run(); }

}  // namespace imgfsck
