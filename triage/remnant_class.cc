// SPDX-License-Identifier: Apache-2.0
#include "triage/remnant_class.h"

#include <algorithm>

#include "base/checked.h"
#include "base/text.h"
#include "formats/qcow2/layout.h"
#include "formats/qcow2/snapshots.h"
#include "triage/byte_statistics.h"
#include "triage/content.h"

namespace imgfsck {
namespace {

constexpr size_t kLeastEntries = 4;  // of a table, before its shape means something
constexpr size_t kMostL1Probes = 8;  // entries of a likely L1 table that are followed
constexpr size_t kLeastCounts = 8;

Bytes WithoutZerosAround(Bytes bytes) {
  while (!bytes.empty() && bytes.front() == 0) bytes = bytes.subspan(1);
  while (!bytes.empty() && bytes.back() == 0) bytes = bytes.first(bytes.size() - 1);
  return bytes;
}

}  // namespace

PieceClassifier::PieceClassifier(const ByteSource& file, std::string_view format,
                                 uint64_t cluster_size)
    : file_(file), qcow2_(format == "qcow2" && cluster_size > 0), cluster_size_(cluster_size) {}

// Entries of eight bytes, big endian, all of which are empty or point at a cluster of the file.
bool PieceClassifier::LooksLikeMapping(Bytes piece, size_t least) const {
  size_t used = 0;
  for (size_t at = 0; at + 8 <= piece.size(); at += 8) {
    const uint64_t entry = BeAt<uint64_t>(piece, at);
    if (entry == 0) continue;
    ++used;
    if ((entry & qcow2::kCompressed) != 0) return false;  // any random number looks like one
    const uint64_t offset = entry & qcow2::kOffsetMask;
    const bool sound = (entry & qcow2::kL2Reserved) == 0 && offset % cluster_size_ == 0 &&
                       offset < file_.Size() && (offset != 0 || entry == qcow2::kZeroFlag);
    if (!sound) return false;
  }
  return used >= least;
}

// Such a table, and the clusters it points at are tables themselves.
bool PieceClassifier::LooksLikeL1(Bytes piece) const {
  if (!LooksLikeMapping(piece, 1)) return false;
  size_t probes = 0;
  ByteVector table(std::min<uint64_t>(cluster_size_, 64 * kKiB));
  for (size_t at = 0; at + 8 <= piece.size() && probes < kMostL1Probes; at += 8) {
    const uint64_t entry = BeAt<uint64_t>(piece, at), offset = entry & qcow2::kOffsetMask;
    if (entry == 0) continue;
    if (offset == 0 || (entry & qcow2::kZeroFlag) != 0) return false;
    ++probes;
    if (!ReadPadded(file_, offset, table) || !LooksLikeMapping(table, 1)) return false;
  }
  return true;
}

// Counts of two bytes, big endian, as small as counts are.
bool PieceClassifier::LooksLikeCounts(Bytes piece) {
  size_t used = 0;
  for (size_t at = 0; at + 2 <= piece.size(); at += 2) {
    const uint16_t count = BeAt<uint16_t>(piece, at);
    if (count > 16) return false;
    if (count != 0) ++used;
  }
  return used >= kLeastCounts;
}

std::string PieceClassifier::SnapshotTable(uint64_t offset) const {
  const auto snapshot = qcow2::ParseSnapshotAt(file_, offset);
  const bool sound = snapshot && snapshot->l1_table_offset % cluster_size_ == 0 &&
                     snapshot->l1_table_offset != 0 && snapshot->l1_table_offset < file_.Size() &&
                     !snapshot->id.empty() && snapshot->id.size() < 16 &&
                     !snapshot->extra_guessed && snapshot->name.size() < 256 &&
                     Printable(snapshot->id) == snapshot->id;
  return sound ? "snapshot table: " + Printable(snapshot->name) : "";
}

// The fixed part of an entry, and a name that can be one.
std::string PieceClassifier::BitmapDirectory(Bytes piece) const {
  constexpr size_t kFixed = 24;
  if (piece.size() < kFixed) return "";
  const uint64_t table = BeAt<uint64_t>(piece, 0), entries = BeAt<uint32_t>(piece, 8);
  const uint32_t flags = BeAt<uint32_t>(piece, 12), extra = BeAt<uint32_t>(piece, 20);
  const uint16_t name_size = BeAt<uint16_t>(piece, 18);
  const bool dirty_tracking = piece[16] == 1, likely_size = piece[17] >= 9 && piece[17] <= 31;
  const bool sound = dirty_tracking && likely_size && flags < 8 && extra == 0 && entries > 0 &&
                     table != 0 && table % cluster_size_ == 0 && table < file_.Size() &&
                     name_size > 0 && RangeFits(kFixed, name_size, piece.size());
  if (!sound) return "";
  const std::string_view name = AsText(piece.subspan(kFixed, name_size));
  return Printable(name) == name ? "bitmap directory: " + std::string(name) : "";
}

std::string PieceClassifier::TableAt(uint64_t offset, Bytes piece) const {
  if (!qcow2_ || offset % cluster_size_ != 0) return "";
  if (LooksLikeL1(piece)) return "l1 table";
  if (LooksLikeMapping(piece, kLeastEntries)) return "l2 table";
  if (LooksLikeCounts(piece)) return "refcount block";
  std::string named = SnapshotTable(offset);
  return named.empty() ? BitmapDirectory(piece) : named;
}

PieceClass PieceClassifier::Classify(uint64_t offset, Bytes piece) const {
  const Bytes core = WithoutZerosAround(piece);
  const ByteStatistics statistics = StatisticsOf(core);
  PieceClass result{RemnantClass::kData, "", statistics.entropy};
  auto answer = [&](RemnantClass kind, std::string what = {}) {
    result.kind = kind;
    result.what = std::move(what);
    return result;
  };
  if (std::string table = TableAt(offset, piece); !table.empty()) {
    return answer(RemnantClass::kTable, std::move(table));
  }
  if (const auto known = RecognizePiece(piece)) {
    const bool file = known->kind == ContentKind::kFile;
    return answer(file ? RemnantClass::kKnownHeader : RemnantClass::kFileSystem,
                  std::string(known->name));
  }
  if (statistics.text > 0.97) return answer(RemnantClass::kText);
  if (LooksEncrypted(statistics, core.size())) return answer(RemnantClass::kRandom);
  if (LooksCompressed(statistics, core.size())) return answer(RemnantClass::kCompressed);
  return result;
}

}  // namespace imgfsck
