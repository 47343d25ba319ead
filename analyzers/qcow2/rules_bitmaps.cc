// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {
namespace {

class BitmapJudge {
 public:
  BitmapJudge(const Image& image, Findings* out)
      : image_(image),
        out_(out),
        consistent_(image.header.is_v3() && image.header.Autoclear(kAutoclearBitmaps)) {}

  void Run() {
    const Extension* record = image_.extensions.Find(kExtBitmaps);
    bool autoclear = image_.header.Autoclear(kAutoclearBitmaps);
    if (record == nullptr) {
      if (autoclear) {
        out_->Add(HeaderFinding(Problem::kQcow2BitmapAutoOrphan, "autoclear_features"));
      }
      return;
    }
    if (record->length != kBitmapsExtLength) {
      AddExtension(*record, Problem::kQcow2BitmapExtLength,
                   fmt::format("{} bytes", record->length));
    }
    if (!image_.header.is_v3()) {
      AddExtension(*record, Problem::kQcow2BitmapV2);
    } else if (!autoclear) {
      AddExtension(*record, Problem::kQcow2BitmapAutoUnset);
    }
    if (!image_.bitmaps_extension) return;
    JudgeDirectory(*record, *image_.bitmaps_extension);
    for (size_t i = 0; i < image_.bitmaps.entries.size(); ++i) JudgeEntry(i);
  }

 private:
  void AddExtension(const Extension& record, Problem problem, std::string detail = {}) {
    Finding f;
    f.problem = problem;
    f.structure = "header-extension";
    f.host = MakeHostRange(record.offset, 8 + record.data.size());
    f.detail = std::move(detail);
    Settle(&f);
    out_->Add(std::move(f));
  }

  Finding Make(size_t i, Problem problem, std::string detail = {}) const {
    const Bitmap& b = image_.bitmaps.entries[i];
    Finding f;
    f.problem = problem;
    f.structure = fmt::format("bitmap[{}]", i);
    f.host = MakeHostRange(b.host_offset, b.length);
    f.detail = std::move(detail);
    Settle(&f);
    return f;
  }

  // QEMU does not look at bitmaps that the header does not call consistent, and so opens the image.
  void Settle(Finding* f) const {
    if (!consistent_) f->effect = Effect::kNone;
  }
  void Add(size_t i, Problem problem, std::string detail = {}) {
    out_->Add(Make(i, problem, std::move(detail)));
  }

  void JudgeDirectory(const Extension& record, const BitmapsExtension& e) {
    uint64_t cluster_size = image_.geometry.cluster_size;
    if (e.reserved != 0) AddExtension(record, Problem::kQcow2BitmapExtReserved, Hex(e.reserved));
    bool unaligned = e.directory_offset == 0 || !IsAligned(e.directory_offset, cluster_size);
    if (unaligned) {
      AddExtension(record, Problem::kQcow2BitmapDirUnaligned, Hex(e.directory_offset));
    } else if (!image_.bitmaps.readable || image_.bitmaps.broken) {
      AddExtension(
          record, Problem::kQcow2BitmapDirSize,
          fmt::format("{} bytes, entries take {}", e.directory_size, image_.bitmaps.parsed_bytes));
    }
    if (image_.bitmaps.misfit) JudgeMisfit(record, *image_.bitmaps.misfit);
    if (e.nb_bitmaps == 0 || e.nb_bitmaps > kMaxBitmaps ||
        (image_.bitmaps.readable && e.nb_bitmaps != image_.bitmaps.entries.size())) {
      AddExtension(
          record, Problem::kQcow2BitmapCount,
          fmt::format("{} declared, {} found", e.nb_bitmaps, image_.bitmaps.entries.size()));
    }
  }

  // An entry that runs out of the directory: which of its lengths cannot be.
  void JudgeMisfit(const Extension& record, const Bitmap& b) {
    if (b.name.size() > kMaxBitmapName) {
      AddExtension(
          record, Problem::kQcow2BitmapName,
          fmt::format("{} bytes, in entry {}", b.name.size(), image_.bitmaps.entries.size()));
    }
    if (b.extra_data_size != 0) {
      AddExtension(
          record, Problem::kQcow2BitmapExtra,
          fmt::format("{} bytes, in entry {}", b.extra_data_size, image_.bitmaps.entries.size()));
    }
  }

  void JudgeEntry(size_t i) {
    const Bitmap& b = image_.bitmaps.entries[i];
    if (!b.padding_zero) Add(i, Problem::kQcow2BitmapEntryPadding);
    if (b.name.empty() || b.name.size() > kMaxBitmapName) {
      Add(i, Problem::kQcow2BitmapName, fmt::format("{} bytes", b.name.size()));
    } else if (!names_.insert(b.name).second) {
      Add(i, Problem::kQcow2BitmapNameDuplicate, Printable(b.name));
    }
    if (b.type != 1) Add(i, Problem::kQcow2BitmapType, fmt::format("{}", b.type));
    if (b.granularity_bits < kMinGranularityBits || b.granularity_bits > kMaxGranularityBits) {
      Add(i, Problem::kQcow2BitmapGranularity, fmt::format("{} bits", b.granularity_bits));
    }
    if (uint32_t bits = b.flags & ~kBitmapFlagsKnown; bits != 0) {
      Add(i, Problem::kQcow2BitmapFlags, fmt::format("reserved bits {}", Hex(bits)));
    }
    if (b.extra_data_size != 0 || (b.flags & kBitmapExtraCompatible) != 0) {
      Add(i, Problem::kQcow2BitmapExtra, fmt::format("{} bytes", b.extra_data_size));
    }
    if (b.in_use()) Add(i, Problem::kQcow2BitmapInUse);
    JudgeTable(i);
  }

  void JudgeTable(size_t i) {
    const Bitmap& b = image_.bitmaps.entries[i];
    uint64_t cluster_size = image_.geometry.cluster_size;
    uint64_t limit = AlignUp(image_.file_size, cluster_size);
    auto needed = BitmapTableEntries(image_.header.size, b.granularity_bits, cluster_size);
    bool too_large = b.table_size > kMaxBitmapTableEntries ||
                     uint64_t{b.table_size} * cluster_size > kMaxBitmapBytes;
    if (!too_large && (b.table_offset == 0 || !IsAligned(b.table_offset, cluster_size) ||
                       !RangeFits(b.table_offset, uint64_t{b.table_size} * 8, limit))) {
      Finding f = Make(i, Problem::kQcow2BitmapTableOffset,
                       fmt::format("{}, {} entries", Hex(b.table_offset), b.table_size));
      // A table behind the end of the file reads as zeros.
      if (b.table_offset != 0 && IsAligned(b.table_offset, cluster_size)) f.effect = Effect::kNone;
      out_->Add(std::move(f));
      return;
    }
    if (b.table_size == 0 || too_large || (!b.in_use() && needed && *needed != b.table_size)) {
      Add(i, Problem::kQcow2BitmapTableSize,
          fmt::format("{} entries, {} needed", b.table_size, needed.value_or(0)));
      if (too_large) return;
    }
    JudgeTableEntries(i, LoadBitmapTable(image_, b));
  }

  void JudgeTableEntries(size_t i, const std::vector<uint64_t>& table) {
    const Bitmap& b = image_.bitmaps.entries[i];
    auto add = [&](size_t entry, Problem problem, std::string detail) {
      Finding f = Make(i, problem, std::move(detail));
      f.structure = fmt::format("bitmap[{}]/table", i);
      f.host = MakeHostRange(b.table_offset + 8 * entry, 8);
      f.guest = GuestOf(b, entry);
      // QEMU refuses the image for these, unless it does not load the bitmap at all.
      const bool refused = consistent_ && !b.in_use() && !AllowedByQemu(table[entry]);
      f.effect = refused ? Effect::kUnreadable : Effect::kNone;
      out_->Add(std::move(f));
    };
    for (size_t entry = 0; entry < table.size(); ++entry) {
      uint64_t value = table[entry], offset = value & kOffsetMask;
      if ((value & kBitmapEntryReserved) != 0 || (offset != 0 && (value & kBitmapAllOnes) != 0)) {
        add(entry, Problem::kQcow2BitmapTentryReserved, Hex(value));
      }
      if (offset != 0 &&
          (!IsAligned(offset, image_.geometry.cluster_size) || offset >= image_.file_size)) {
        add(entry, Problem::kQcow2BitmapTentryOffset, Hex(offset));
      }
    }
    JudgeTail(i, table);
  }

  bool AllowedByQemu(uint64_t value) const {
    const uint64_t offset = value & kOffsetMask;
    return (value & kBitmapEntryReserved) == 0 &&
           (offset == 0 ||
            ((value & kBitmapAllOnes) == 0 && IsAligned(offset, image_.geometry.cluster_size)));
  }

  std::optional<GuestRange> GuestOf(const Bitmap& b, uint64_t entry) const {
    if (b.granularity_bits > 40) return std::nullopt;
    uint64_t span = image_.geometry.cluster_size * 8 << b.granularity_bits;
    uint64_t begin = SaturatingMul(entry, span);
    if (begin >= image_.header.size) return std::nullopt;
    return MakeGuestRange(begin, std::min(span, image_.header.size - begin));
  }

  // Bits behind the disk's end, in the last data cluster, must be clear.
  void JudgeTail(size_t i, const std::vector<uint64_t>& table) {
    const Bitmap& b = image_.bitmaps.entries[i];
    auto needed =
        BitmapTableEntries(image_.header.size, b.granularity_bits, image_.geometry.cluster_size);
    if (!needed || *needed != table.size() || table.empty()) return;
    uint64_t offset = table.back() & kOffsetMask;
    if (offset == 0 || !IsAligned(offset, image_.geometry.cluster_size) ||
        offset >= image_.file_size) {
      return;
    }
    ByteVector data(image_.geometry.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, offset, data, &bad);
    uint64_t bits = DivRoundUp(image_.header.size, uint64_t{1} << b.granularity_bits) -
                    (table.size() - 1) * data.size() * 8;
    uint64_t byte = bits / 8;
    bool junk = bits % 8 != 0 && (data[byte] >> (bits % 8)) != 0;
    byte += bits % 8 != 0;
    junk |= byte < data.size() && !AllZero(Bytes(data).subspan(byte));
    if (junk) Add(i, Problem::kQcow2BitmapTailBits);
  }

  const Image& image_;
  Findings* out_;
  bool consistent_;
  std::set<std::string> names_;
};

}  // namespace

void JudgeBitmaps(const Image& image, Findings* out) { BitmapJudge(image, out).Run(); }

}  // namespace imgfsck::qcow2
