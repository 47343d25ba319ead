// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/entry_rules.h"

#include <fmt/format.h>

#include <bit>

#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

class EntryJudge {
 public:
  EntryJudge(const Image& image, const TableRef& table, uint64_t index, const Entry& entry,
             Findings* findings)
      : image_(image),
        g_(image.geometry),
        table_(table),
        index_(index),
        entry_(entry),
        findings_(findings),
        guest_((table.column * g_.l2_entries + index) << g_.cluster_bits) {}

  void Run() {
    if (entry_.compressed()) {
      JudgeCompressed();
    } else {
      JudgeStandard();
      if (image_.has_data_file()) JudgeDataFile();
      if (g_.extended_l2) JudgeSubclusters();
    }
    JudgeSize();
  }

 private:
  void Add(Problem problem, std::string detail = {}) {
    findings_->Add(EntryFinding(image_, table_, index_, problem, std::move(detail)));
  }

  void JudgeCompressed() {
    CompressedSpan span = DecodeCompressed(g_, entry_.descriptor);
    if (entry_.copied()) Add(Problem::kQcow2ComprCopied);
    if (uint64_t bits = entry_.descriptor & CompressedReserved(g_); bits != 0) {
      Add(Problem::kQcow2ComprReserved, fmt::format("reserved bits {}", Hex(bits)));
    }
    if (image_.has_data_file()) {
      Add(Problem::kQcow2ComprDataFile);
      return;
    }
    if (span.offset >= image_.file_size ||
        span.end() > AlignUp(image_.file_size, g_.cluster_size) + g_.cluster_size) {
      Add(Problem::kQcow2ComprPastEof,
          fmt::format("stream at {}, {} bytes", Hex(span.offset), span.length));
    }
    if (image_.header.crypt_method != kCryptNone) Add(Problem::kQcow2ComprPlaintext);
    if (g_.extended_l2 && entry_.subclusters != 0) Add(Problem::kQcow2Extl2ComprBitmap);
  }

  void JudgeStandard() {
    uint64_t host = entry_.host();
    if (uint64_t bits = entry_.descriptor & kL2Reserved; bits != 0) {
      Finding f = EntryFinding(image_, table_, index_, Problem::kQcow2L2EntryReserved,
                               fmt::format("reserved bits {}", Hex(bits)));
      const bool sound =
          IsAligned(host, g_.cluster_size) && (image_.has_data_file() || host < image_.file_size);
      if (!sound) f.repair = RepairClass::kAll;
      findings_->Add(std::move(f));
    }
    if (entry_.zero_flag()) {
      if (!image_.header.is_v3()) Add(Problem::kQcow2L2ZeroFlagV2);
      if (g_.extended_l2) Add(Problem::kQcow2L2ZeroFlagExtl2);
    }
    if (host == 0) {
      if (entry_.copied() && !image_.has_data_file()) Add(Problem::kQcow2L2OffsetZeroCopied);
      return;
    }
    if (!IsAligned(host, g_.cluster_size)) {
      Finding f = EntryFinding(image_, table_, index_, Problem::kQcow2L2EntryUnaligned,
                               fmt::format("host offset {}", Hex(host)));
      if (!OffsetIsIdle(image_, entry_)) f.repair = RepairClass::kAll;
      findings_->Add(std::move(f));
    } else if (!image_.has_data_file()) {
      if (host >= image_.file_size) {
        Add(Problem::kQcow2L2EntryPastEof, fmt::format("host offset {}", Hex(host)));
      } else if (!RangeFits(host, g_.cluster_size, image_.file_size)) {
        Add(Problem::kQcow2L2TailShort);
      }
    }
  }

  void JudgeDataFile() {
    uint64_t host = entry_.host();
    bool allocated = host != 0 || entry_.copied();
    if (!allocated) {
      if (image_.header.Autoclear(kAutoclearRawData) && guest_ < image_.LayerSize(table_.layer) &&
          !entry_.zero_flag()) {
        Add(Problem::kQcow2DatafileRawMap);
      }
      return;
    }
    if (host != guest_) {
      Add(Problem::kQcow2DatafileOffset, fmt::format("host offset {}", Hex(host)));
    }
    if (!entry_.copied() && table_.active) Add(Problem::kQcow2DatafileCopied);
  }

  void JudgeSubclusters() {
    uint32_t alloc = entry_.alloc_bits(), zero = entry_.zero_bits();
    if ((alloc & zero) != 0) {
      Add(Problem::kQcow2Extl2BothBits, fmt::format("subclusters {}", Hex(alloc & zero)));
    }
    bool no_host = entry_.host() == 0 && !(image_.has_data_file() && entry_.copied());
    if (alloc != 0 && no_host) {
      Add(Problem::kQcow2Extl2AllocNoHost, fmt::format("subclusters {}", Hex(alloc)));
    }
    uint64_t size = image_.LayerSize(table_.layer);
    if (guest_ < size && guest_ + g_.cluster_size > size) {
      uint64_t used = DivRoundUp(size - guest_, g_.cluster_size / kSubclusters);
      if (used < kSubclusters && (alloc >> used) != 0) Add(Problem::kQcow2Extl2PastSize);
    }
  }

  void JudgeSize() {
    if (guest_ < image_.LayerSize(table_.layer) || table_.column >= image_.L1Min(table_.layer)) {
      return;  // inside the disk, or in the range of VM states
    }
    if (entry_.descriptor != 0) Add(Problem::kQcow2L2PastSize);
  }

  const Image& image_;
  const Geometry& g_;
  const TableRef& table_;
  uint64_t index_;
  const Entry& entry_;
  Findings* findings_;
  uint64_t guest_;
};

}  // namespace

EntryClaim ClaimOf(const Image& image, const Entry& entry) {
  const Geometry& g = image.geometry;
  if (image.has_data_file()) return {};
  if (entry.compressed()) {
    CompressedSpan span = DecodeCompressed(g, entry.descriptor);
    if (span.offset >= image.file_size) return {};
    return {EntryClaim::Kind::kSpan, span.offset >> g.cluster_bits,
            (span.end() - 1) >> g.cluster_bits, false};
  }
  uint64_t host = entry.host();
  if (host == 0 || !IsAligned(host, g.cluster_size) || host >= image.file_size) return {};
  uint64_t cluster = host >> g.cluster_bits;
  return {EntryClaim::Kind::kCluster, cluster, cluster, entry.copied()};
}

bool EntryInvalid(const Image& image, const Entry& entry) {
  if (entry.compressed()) {
    CompressedSpan span = DecodeCompressed(image.geometry, entry.descriptor);
    return entry.copied() || span.offset >= image.file_size || image.has_data_file() ||
           (entry.descriptor & CompressedReserved(image.geometry)) != 0;
  }
  uint64_t host = entry.host();
  return (entry.descriptor & kL2Reserved) != 0 || !IsAligned(host, image.geometry.cluster_size) ||
         (!image.has_data_file() && host >= image.file_size && host != 0);
}

bool OffsetIsIdle(const Image& image, const Entry& entry) {
  constexpr int kMostFlipped = 2;
  const Geometry& g = image.geometry;
  if (!(g.extended_l2 ? entry.alloc_bits() == 0 : entry.zero_flag())) return false;
  if ((entry.descriptor & kL2Reserved) != 0) return false;
  const uint64_t host = entry.host(), inside = host & (g.cluster_size - 1);
  return std::popcount(host) <= kMostFlipped ||
         (std::popcount(inside) <= kMostFlipped && host - inside < image.file_size);
}

Finding EntryFinding(const Image& image, const TableRef& table, uint64_t index, Problem problem,
                     std::string detail) {
  const Geometry& g = image.geometry;
  Finding f;
  f.problem = problem;
  f.structure = image.TableName(table.layer, table.column);
  f.host = MakeHostRange(table.offset + index * g.l2_entry_size, g.l2_entry_size);
  f.layer = image.LayerName(table.layer);
  uint64_t guest = (table.column * g.l2_entries + index) << g.cluster_bits;
  f.guest = MakeGuestRange(guest, g.cluster_size);
  f.detail = std::move(detail);
  const ProblemInfo& info = InfoOf(problem);
  if (!table.active && info.severity == Severity::kCorruption) {
    f.detail =
        f.detail.empty() ? std::string(info.code) : fmt::format("{}: {}", info.code, f.detail);
    f.effect = info.effect;
    f.repair = info.repair;
    f.problem = Problem::kQcow2SnapL2Structure;
  }
  return f;
}

void JudgeEntry(const Image& image, const TableRef& table, uint64_t index, const Entry& entry,
                Findings* findings) {
  EntryJudge(image, table, index, entry, findings).Run();
}

}  // namespace imgfsck::qcow2
