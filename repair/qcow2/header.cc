// SPDX-License-Identifier: Apache-2.0
// Single header fields and extension records whose right value follows from the rest of the image.
#include <algorithm>
#include <optional>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/recover/disk_size.h"
#include "formats/common/deflate.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kHeaderProblems = {Problem::kQcow2HdrMagic,
                                                            Problem::kQcow2HdrVersion,
                                                            Problem::kQcow2HdrLengthShort,
                                                            Problem::kQcow2HdrLengthUnaligned,
                                                            Problem::kQcow2HdrLengthOver,
                                                            Problem::kQcow2HdrPadding,
                                                            Problem::kQcow2HdrIncompatUnknown,
                                                            Problem::kQcow2HdrCompressionFlag,
                                                            Problem::kQcow2HdrCompressionType,
                                                            Problem::kQcow2HdrRawNoDatafile,
                                                            Problem::kQcow2HdrRawBacking,
                                                            Problem::kQcow2SnapTableUnaligned,
                                                            Problem::kQcow2L1Short,
                                                            Problem::kQcow2L1Cap,
                                                            Problem::kQcow2L1Unaligned,
                                                            Problem::kQcow2L1PastEof,
                                                            Problem::kQcow2L1OffsetZero,
                                                            Problem::kQcow2SnapOffsetStale,
                                                            Problem::kQcow2DatafileRawMap,
                                                            Problem::kQcow2HdrSizeUnaligned,
                                                            Problem::kQcow2HdrSizeCap};

class HeaderRepair {
 public:
  explicit HeaderRepair(const PassContext& context)
      : context_(context),
        state_(StateOf(context.report)),
        image_(*state_.image),
        header_(image_.header) {}

  Result<PassOutcome> Run() {
    cluster_ = image_.first_cluster;
    cluster_.resize(std::max<size_t>(cluster_.size(), kHeaderLengthCurrent));
    ByteVector before = cluster_;
    MendIdentity();
    if (image_.walkable) {
      MendLength();
      MendFeatures();
      MendTables();
    }
    EncodeHeader(header_, cluster_);
    if (image_.header.version != header_.version) return outcome_;
    if (cluster_ == before) return outcome_;
    cluster_.resize(std::min<uint64_t>(cluster_.size(), image_.file_size));
    IMG_RETURN_IF_ERROR(context_.image.WriteAt(0, cluster_));
    outcome_.changes = 1;
    return outcome_;
  }

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }

  void MendIdentity() {
    // Only when the rest makes an image of it.
    if (Should(Problem::kQcow2HdrMagic) && image_.walkable && image_.active.entries > 0) {
      header_.magic = kMagic;
    }
  }

  void MendLength() {
    bool current = header_.compression_type != 0 || header_.Incompatible(kIncompatCompression);
    if (Should(Problem::kQcow2HdrLengthShort) || Should(Problem::kQcow2HdrLengthOver)) {
      header_.header_length = static_cast<uint32_t>(RightLength(current));
    } else if (Should(Problem::kQcow2HdrLengthUnaligned)) {
      uint64_t rounded = AlignUp(header_.header_length, 8);
      if (rounded <= cluster_.size() &&
          AllZero(
              Bytes(cluster_).subspan(header_.header_length, rounded - header_.header_length))) {
        header_.header_length = static_cast<uint32_t>(rounded);
      } else {
        header_.header_length = static_cast<uint32_t>(RightLength(current));
      }
    }
    if (Should(Problem::kQcow2HdrPadding)) std::fill_n(cluster_.begin() + 105, 7, uint8_t{0});
  }

  // The length under which the extension area parses to its end mark.
  uint64_t RightLength(bool current) const {
    for (uint64_t length : {kHeaderLengthCurrent, kHeaderLengthV3}) {
      Header trial = header_;
      trial.header_length = static_cast<uint32_t>(length);
      ExtensionArea area = ParseExtensions(trial, cluster_);
      if (area.end_marker && !area.overrun) return length;
    }
    return current ? kHeaderLengthCurrent : kHeaderLengthV3;
  }

  void MendFeatures() {
    if (!header_.is_v3()) return;
    if (Should(Problem::kQcow2HdrIncompatUnknown)) header_.incompatible_features &= kIncompatKnown;
    if (Should(Problem::kQcow2HdrRawNoDatafile) || Should(Problem::kQcow2HdrRawBacking) ||
        Should(Problem::kQcow2DatafileRawMap)) {
      header_.autoclear_features &= ~kAutoclearRawData;
    }
    if (Should(Problem::kQcow2HdrCompressionFlag) || Should(Problem::kQcow2HdrCompressionType)) {
      MendCompression();
    }
  }

  // What the streams in the image decode as; deflate where there are none.
  void MendCompression() {
    std::optional<uint8_t> found;
    Status status =
        ForEachTable(context_.image, state_, [&](const TableRef&, MutableBytes bytes, bool*) {
          for (uint64_t i = 0; i < image_.geometry.l2_entries && !found; ++i) {
            Entry entry = LoadEntry(image_.geometry, bytes, i);
            if (!entry.compressed() || ClaimOf(image_, entry).kind == EntryClaim::Kind::kNone)
              continue;
            CompressedSpan span = DecodeCompressed(image_.geometry, entry.descriptor);
            ByteVector in(span.length), out(image_.geometry.cluster_size);
            if (!ReadPadded(context_.image, span.offset, in)) continue;
            if (InflateRaw(in, out))
              found = kDeflate;
            else if (ZstdDecode(in, out))
              found = kZstd;
          }
          return Ok();
        });
    if (!status) return;
    if (!found && image_.geometry.cluster_bits == 0) return;
    bool zstd = found.value_or(kDeflate) == kZstd;
    if (zstd && !header_.has_compression_field()) return;
    header_.compression_type = zstd ? kZstd : kDeflate;
    header_.incompatible_features &= ~kIncompatCompression;
    if (zstd) header_.incompatible_features |= kIncompatCompression;
    if (!zstd && cluster_.size() > 104 && header_.has_compression_field()) cluster_[104] = 0;
  }

  void MendTables() {
    if ((Should(Problem::kQcow2SnapTableUnaligned) || Should(Problem::kQcow2SnapOffsetStale)) &&
        header_.nb_snapshots == 0) {
      header_.snapshots_offset = 0;
    }
    if (Should(Problem::kQcow2HdrSizeUnaligned)) RoundSize();
    if (Should(Problem::kQcow2HdrSizeCap)) ShrinkDisk();
    uint64_t needed = image_.L1Min(0);
    if (image_.active.entries == 0 && needed > 0) FindLostL1(needed);
    // The table's clusters hold what the disk needs: the number of entries was damaged.
    if ((Should(Problem::kQcow2L1Short) || Should(Problem::kQcow2L1Cap)) &&
        image_.active.entries >= needed && needed > 0) {
      header_.l1_size = static_cast<uint32_t>(needed);
    }
  }

  // No table maps such a disk: it was smaller.
  void ShrinkDisk() {
    const Geometry& g = image_.geometry;
    const uint64_t room = SaturatingMul(image_.active.entries, g.l2_span);
    const DiskSize found = FindDiskSize(image_);
    const uint64_t size = std::min(found.bytes, room);
    if (size == 0 || size >= header_.size || g.MinL1Entries(size) * 8 > kMaxL1Bytes) return;
    outcome_.changed.push_back(
        {std::string(kActiveLayer), MakeGuestRange(size, header_.size - size)});
    outcome_.particulars.push_back("disk size: " + found.evidence);
    header_.size = size;
  }

  // QEMU ignores the odd bytes at the end; with the rest of their sector it shows them.
  void RoundSize() {
    const uint64_t size = AlignUp(header_.size, kSector);
    if (image_.geometry.MinL1Entries(size) <= header_.l1_size) {
      header_.size = size;
    } else {
      outcome_.notes.push_back(
          "the disk size is not rounded up: the L1 table has no entry for more");
    }
  }

  // The one L1 table in the file that is counted and that nobody refers to.
  void FindLostL1(uint64_t needed) {
    if (!Should(Problem::kQcow2L1Unaligned) && !Should(Problem::kQcow2L1PastEof) &&
        !Should(Problem::kQcow2L1OffsetZero)) {
      return;
    }
    std::optional<uint64_t> found;
    for (const Finding& f : context_.report.findings.kept()) {
      if (f.problem != Problem::kQcow2SnapOrphanL1 || !f.host) continue;
      if (found || needed * 8 > f.host->length) {
        outcome_.notes.push_back("the lost L1 table cannot be told from others: left");
        return;
      }
      found = f.host->offset.value;
    }
    if (!found) return;
    header_.l1_table_offset = *found;
    header_.l1_size = static_cast<uint32_t>(std::max<uint64_t>(needed, 1));
    outcome_.particulars.push_back("the lost L1 table was found in the file and linked again");
  }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  Header header_;
  ByteVector cluster_;
  PassOutcome outcome_;
};

}  // namespace

const Pass kHeaderPass{"header", 10, "put right header fields whose value the image shows",
                       [](const CheckReport& report, const RepairOptions& options) {
                         return WantedAny(report, options, kHeaderProblems);
                       },
                       [](const PassContext& context) { return HeaderRepair(context).Run(); }};

}  // namespace imgfsck::qcow2
