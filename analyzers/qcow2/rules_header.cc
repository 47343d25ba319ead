// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {

Finding HeaderFinding(Problem problem, std::string_view field, std::string detail) {
  Finding f;
  f.problem = problem;
  f.structure = "header";
  f.detail = std::move(detail);
  for (const FieldSpec& spec : HeaderFields()) {
    if (spec.name == field) f.host = MakeHostRange(spec.offset, spec.length);
  }
  return f;
}

namespace {

void JudgeIdentity(const Header& h, Findings* out) {
  if (h.magic != kMagic) {
    out->Add(HeaderFinding(Problem::kQcow2HdrMagic, "magic", Hex(h.magic)));
  }
  if (h.version != 2 && h.version != 3) {
    out->Add(HeaderFinding(Problem::kQcow2HdrVersion, "version", fmt::format("{}", h.version)));
  }
  if (h.cluster_bits < kMinClusterBits || h.cluster_bits > kMaxClusterBits) {
    out->Add(HeaderFinding(Problem::kQcow2HdrClusterBits, "cluster_bits",
                           fmt::format("{}", h.cluster_bits)));
  }
}

void JudgeLength(const Image& image, Findings* out) {
  const Header& h = image.header;
  std::string text = fmt::format("{} bytes", h.header_length);
  if (h.header_length < kHeaderLengthV3) {
    out->Add(HeaderFinding(Problem::kQcow2HdrLengthShort, "header_length", text));
  }
  if (h.header_length % 8 != 0) {
    out->Add(HeaderFinding(Problem::kQcow2HdrLengthUnaligned, "header_length", text));
  }
  if (image.walkable && h.header_length > image.geometry.cluster_size) {
    out->Add(HeaderFinding(Problem::kQcow2HdrLengthOver, "header_length", text));
  }
  uint64_t padding_end =
      std::min<uint64_t>({h.header_length, kHeaderLengthCurrent, image.first_cluster.size()});
  if (padding_end > 105 && !AllZero(Bytes(image.first_cluster).subspan(105, padding_end - 105))) {
    Finding f = HeaderFinding(Problem::kQcow2HdrPadding, "");
    f.host = MakeHostRange(105, 7);
    out->Add(std::move(f));
  }
}

void JudgeFeatures(const Image& image, Findings* out) {
  const Header& h = image.header;
  auto unknown = [&](uint64_t bits, Problem problem, std::string_view field) {
    if (bits != 0) out->Add(HeaderFinding(problem, field, fmt::format("bits {}", Hex(bits))));
  };
  unknown(h.incompatible_features & ~kIncompatKnown, Problem::kQcow2HdrIncompatUnknown,
          "incompatible_features");
  unknown(h.compatible_features & ~kCompatKnown, Problem::kQcow2HdrCompatUnknown,
          "compatible_features");
  unknown(h.autoclear_features & ~kAutoclearKnown, Problem::kQcow2HdrAutoclearUnknown,
          "autoclear_features");
  if (h.Incompatible(kIncompatDirty)) {
    out->Add(HeaderFinding(Problem::kQcow2HdrDirty, "incompatible_features"));
  }
  if (h.Incompatible(kIncompatCorrupt)) {
    out->Add(HeaderFinding(Problem::kQcow2HdrCorrupt, "incompatible_features"));
  }
  if ((h.compression_type != kDeflate) != h.Incompatible(kIncompatCompression)) {
    out->Add(HeaderFinding(Problem::kQcow2HdrCompressionFlag, "compression_type",
                           fmt::format("type {}, feature bit {}", h.compression_type,
                                       h.Incompatible(kIncompatCompression) ? "set" : "clear")));
  }
  if (h.compression_type > kZstd) {
    out->Add(HeaderFinding(Problem::kQcow2HdrCompressionType, "compression_type",
                           fmt::format("{}", h.compression_type)));
  }
  if (h.Incompatible(kIncompatExtendedL2) && h.cluster_bits < kMinClusterBitsExtendedL2) {
    out->Add(HeaderFinding(Problem::kQcow2HdrExtl2Cluster, "cluster_bits",
                           fmt::format("{}", h.cluster_bits)));
  }
  if (h.Autoclear(kAutoclearRawData)) {
    if (!h.Incompatible(kIncompatDataFile)) {
      out->Add(HeaderFinding(Problem::kQcow2HdrRawNoDatafile, "autoclear_features"));
    } else if (h.backing_file_offset != 0) {
      out->Add(HeaderFinding(Problem::kQcow2HdrRawBacking, "backing_file_offset"));
    }
  }
}

}  // namespace

void JudgeHeader(const Image& image, Findings* out) {
  const Header& h = image.header;
  JudgeIdentity(h, out);
  if (h.is_v3()) {
    JudgeLength(image, out);
    JudgeFeatures(image, out);
    if (h.refcount_order > kMaxRefcountOrder) {
      out->Add(HeaderFinding(Problem::kQcow2HdrRefcountOrder, "refcount_order",
                             fmt::format("{}", h.refcount_order)));
    }
  }
  if (h.size % kSector != 0) {
    out->Add(
        HeaderFinding(Problem::kQcow2HdrSizeUnaligned, "size", fmt::format("{} bytes", h.size)));
  }
  if (h.crypt_method > kCryptLuks) {
    out->Add(HeaderFinding(Problem::kQcow2HdrCryptMethod, "crypt_method",
                           fmt::format("{}", h.crypt_method)));
  }
  if (image.walkable && (h.size > (uint64_t{1} << 63) - 1 || image.L1Min(0) > kMaxL1Bytes / 8)) {
    out->Add(HeaderFinding(Problem::kQcow2HdrSizeCap, "size", fmt::format("{} bytes", h.size)));
  }
}

void SetRangeBehindL1(const Image& image, size_t layer, uint64_t offset, uint64_t entries,
                      Finding* f) {
  const uint64_t room = image.file_size - std::min(offset, image.file_size);
  const uint64_t begin = SaturatingMul(std::min(entries, room / 8), image.geometry.l2_span);
  const uint64_t size = image.LayerSize(layer);
  f->layer = image.LayerName(layer);
  if (begin < size) {
    f->guest = MakeGuestRange(begin, size - begin);
  } else {
    f->effect = Effect::kNone;
  }
}

bool HeaderIsRefused(const Image& stored) {
  const Header& h = stored.header;
  if (h.magic != kMagic || !stored.walkable || h.crypt_method > kCryptLuks) return true;
  uint64_t cluster = stored.geometry.cluster_size;
  if (h.is_v3()) {
    bool length = h.header_length >= kHeaderLengthV3 && h.header_length <= cluster;
    bool compression = h.compression_type <= kZstd &&
                       (h.compression_type != kDeflate) == h.Incompatible(kIncompatCompression);
    bool extended =
        !h.Incompatible(kIncompatExtendedL2) || h.cluster_bits >= kMinClusterBitsExtendedL2;
    if (!length || !compression || !extended || h.refcount_order > kMaxRefcountOrder ||
        (h.incompatible_features & ~kIncompatKnown) != 0) {
      return true;
    }
  }
  uint64_t table = h.refcount_table_clusters * cluster;
  return !IsAligned(h.l1_table_offset, cluster) || h.l1_size < stored.L1Min(0) ||
         uint64_t{h.l1_size} * 8 > kMaxL1Bytes || h.size > (uint64_t{1} << 63) - 1 ||
         !IsAligned(h.refcount_table_offset, cluster) || table == 0 ||
         table > kMaxRefcountTableBytes || !IsAligned(h.snapshots_offset, cluster) ||
         h.nb_snapshots > kMaxSnapshots;
}

void JudgeL1(const Image& image, Findings* out) {
  const Header& h = image.header;
  uint64_t needed = image.L1Min(0);
  auto entries = [&] { return fmt::format("{} entries, {} needed", h.l1_size, needed); };
  if (!IsAligned(h.l1_table_offset, image.geometry.cluster_size)) {
    out->Add(HeaderFinding(Problem::kQcow2L1Unaligned, "l1_table_offset", Hex(h.l1_table_offset)));
    return;
  }
  if (h.l1_table_offset == 0) {
    if (h.l1_size != 0) {
      Finding f = HeaderFinding(Problem::kQcow2L1OffsetZero, "l1_table_offset");
      f.layer = kActiveLayer;
      out->Add(std::move(f));
    }
    if (h.l1_size < needed) out->Add(HeaderFinding(Problem::kQcow2L1Short, "l1_size", entries()));
    return;
  }
  if (h.l1_size < needed) out->Add(HeaderFinding(Problem::kQcow2L1Short, "l1_size", entries()));
  uint64_t bytes = uint64_t{h.l1_size} * 8;
  if (bytes > kMaxL1Bytes) {
    out->Add(HeaderFinding(Problem::kQcow2L1Cap, "l1_size", entries()));
  } else if (h.l1_size > needed) {
    out->Add(HeaderFinding(Problem::kQcow2L1Oversize, "l1_size", entries()));
  }
  if (!RangeFits(h.l1_table_offset, bytes, AlignUp(image.file_size, image.geometry.cluster_size))) {
    Finding f = HeaderFinding(Problem::kQcow2L1PastEof, "l1_table_offset",
                              fmt::format("{}, {} bytes", Hex(h.l1_table_offset), bytes));
    SetRangeBehindL1(image, 0, h.l1_table_offset, h.l1_size, &f);
    out->Add(std::move(f));
  }
}

void JudgeRefcountTable(const Image& image, Findings* out) {
  const Header& h = image.header;
  const Geometry& g = image.geometry;
  uint64_t bytes = h.refcount_table_clusters * g.cluster_size;
  if (!IsAligned(h.refcount_table_offset, g.cluster_size)) {
    out->Add(HeaderFinding(Problem::kQcow2RtUnaligned, "refcount_table_offset",
                           Hex(h.refcount_table_offset)));
  } else if (h.refcount_table_offset == 0 ||
             !RangeFits(h.refcount_table_offset, bytes, AlignUp(image.file_size, g.cluster_size)) ||
             h.refcount_table_offset >= image.file_size) {
    out->Add(HeaderFinding(Problem::kQcow2RtPastEof, "refcount_table_offset",
                           fmt::format("{}, {} bytes", Hex(h.refcount_table_offset), bytes)));
  }
  if (h.refcount_table_clusters == 0) {
    out->Add(HeaderFinding(Problem::kQcow2RtEmpty, "refcount_table_clusters"));
  }
  if (bytes > kMaxRefcountTableBytes) {
    out->Add(HeaderFinding(Problem::kQcow2RtCap, "refcount_table_clusters",
                           fmt::format("{} bytes", bytes)));
  }
  for (size_t i = 0; i < image.refcount_table.size(); ++i) {
    uint64_t entry = image.refcount_table[i];
    if (entry == 0) continue;
    auto add = [&](Problem problem, std::string detail) {
      Finding f;
      f.problem = problem;
      f.structure = "refcount-table";
      f.host = MakeHostRange(h.refcount_table_offset + 8 * i, 8);
      f.detail = std::move(detail);
      out->Add(std::move(f));
    };
    uint64_t offset = entry & ~kRefcountTableReserved;
    if ((entry & kRefcountTableReserved) != 0) {
      add(Problem::kQcow2RtEntryReserved, Hex(entry & kRefcountTableReserved));
    }
    if (!IsAligned(offset, g.cluster_size)) {
      add(Problem::kQcow2RtEntryUnaligned, Hex(offset));
    } else if (offset != 0 && offset >= image.file_size) {
      add(Problem::kQcow2RtEntryPastEof, Hex(offset));
    }
  }
}

}  // namespace imgfsck::qcow2
