// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/scan.h"

#include <algorithm>

#include "formats/common/stored.h"
#include "formats/qcow2/layout.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostRuns = 4 << 20, kMostStarts = 1 << 20;
// Offsets below this and not below the longest cluster behind the end lie in the file.
constexpr uint64_t kCompressedOffsetBits = 49;  // the fewest of any cluster size

bool IsText(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t c) { return c >= 32 && c != 127; });
}

// An entry of a snapshot table: sheet, section 8.
bool BeginsSnapshotTable(Bytes sector, uint64_t file_size) {
  uint64_t l1 = BeAt<uint64_t>(sector, 0);
  uint32_t l1_size = BeAt<uint32_t>(sector, 8);
  uint64_t id_length = BeAt<uint16_t>(sector, 12), name_length = BeAt<uint16_t>(sector, 14);
  uint32_t nanoseconds = BeAt<uint32_t>(sector, 20), extra = BeAt<uint32_t>(sector, 36);
  if (l1 == 0 || !IsAligned(l1, kSector) || l1 >= file_size || l1_size == 0 ||
      uint64_t{l1_size} * 8 > kMaxL1Bytes || id_length == 0 || nanoseconds >= 1000000000 ||
      extra > kMaxSnapshotExtra) {
    return false;
  }
  uint64_t names = 40 + extra;
  if (names >= sector.size()) return true;  // out of sight
  uint64_t visible = std::min<uint64_t>(id_length + name_length, sector.size() - names);
  return IsText(sector.subspan(names, visible));
}

// An entry of a bitmap directory: sheet, section 9.
bool BeginsBitmapDirectory(Bytes sector, uint64_t file_size) {
  uint64_t table = BeAt<uint64_t>(sector, 0);
  uint32_t entries = BeAt<uint32_t>(sector, 8), flags = BeAt<uint32_t>(sector, 12);
  uint8_t type = sector[16], granularity = sector[17];
  uint64_t name_length = BeAt<uint16_t>(sector, 18);
  uint32_t extra = BeAt<uint32_t>(sector, 20);
  if (table == 0 || !IsAligned(table, kSector) || table >= file_size || entries == 0 || flags > 7 ||
      type != 1 || granularity < kMinGranularityBits || granularity > kMaxGranularityBits ||
      name_length == 0 || name_length > kMaxBitmapName || extra != 0) {
    return false;
  }
  return IsText(sector.subspan(24, std::min<uint64_t>(name_length, sector.size() - 24)));
}

bool BeginsLuks(Bytes sector) {
  static constexpr uint8_t kStart[] = {'L', 'U', 'K', 'S', 0xBA, 0xBE, 0, 1};
  return std::equal(std::begin(kStart), std::end(kStart), sector.begin());
}

class Scanner {
 public:
  Scanner(const ByteSource& source, const ProgressFn& progress)
      : source_(source), progress_(progress), size_(source.Size()) {}

  Result<ScanResult> Run() {
    std::vector<HostRange> bad;
    // The first sector is the header's.
    IMG_RETURN_IF_ERROR(ForEachStoredPiece(
        source_, kSector, size_, &bad, [&](uint64_t offset, Bytes bytes) -> Result<bool> {
          Piece(offset, bytes);
          bad.clear();
          if (progress_) progress_("searching for tables", offset + bytes.size(), size_);
          return true;
        }));
    return std::move(result_);
  }

 private:
  // Pieces begin where the host file's extents do: mostly, but not always, at a sector.
  void Piece(uint64_t offset, Bytes bytes) {
    uint64_t skip = AlignUp(offset, kSector) - offset;
    while (skip < bytes.size()) {
      Bytes sector = bytes.subspan(skip, std::min<uint64_t>(kSector, bytes.size() - skip));
      if (sector.size() < kSector) {  // the end of the file: the rest reads as zeros
        last_.assign(kSector, 0);
        std::ranges::copy(sector, last_.begin());
        sector = last_;
      }
      Sector(offset + skip, sector);
      skip += kSector;
    }
  }

  void Sector(uint64_t offset, Bytes sector) {
    if (AllZero(sector)) return;
    if (uint8_t forms = FormsOf(sector, size_); forms != 0) {
      AddRun(offset, forms);
      if ((forms & kFormRefcountTable) != 0 && BeAt<uint64_t>(sector, 0) != 0) {
        Note(&result_.refcount_tables, offset);
      }
      return;
    }
    if (BeginsSnapshotTable(sector, size_)) Note(&result_.snapshot_tables, offset);
    if (BeginsBitmapDirectory(sector, size_)) Note(&result_.bitmap_directories, offset);
    if (BeginsLuks(sector)) Note(&result_.luks_headers, offset);
  }

  void Note(std::vector<uint64_t>* list, uint64_t offset) {
    if (list->size() < kMostStarts) {
      list->push_back(offset);
    } else {
      result_.complete = false;
    }
  }

  void AddRun(uint64_t offset, uint8_t forms) {
    auto& runs = result_.runs;
    if (!runs.empty() && runs.back().end() == offset && runs.back().forms == forms &&
        runs.back().sectors < ~uint32_t{0}) {
      ++runs.back().sectors;
    } else if (runs.size() < kMostRuns) {
      runs.push_back({offset, 1, forms});
    } else {
      result_.complete = false;
    }
  }

  const ByteSource& source_;
  const ProgressFn& progress_;
  uint64_t size_;
  ByteVector last_;
  ScanResult result_;
};

}  // namespace

uint8_t FormsOf(Bytes sector, uint64_t file_size) {
  uint8_t forms = kFormRefcountTable | kFormL1 | kFormL2 | kFormExtendedL2;
  bool any = false, any_entry = false;
  for (size_t i = 0; i < kSector; i += 8) {
    uint64_t value = LoadBe<uint64_t>(&sector[i]);
    if (value == 0) continue;
    any = true;
    uint64_t offset = value & kOffsetMask;
    uint8_t fits = 0;
    bool bitmap = i % 16 == 8;
    if (bitmap && ((value >> 32) & value & 0xFFFFFFFF) == 0) fits |= kFormExtendedL2;
    if ((value & kCompressed) != 0) {
      uint64_t low = value & ((uint64_t{1} << kCompressedOffsetBits) - 1);
      if ((value & kCopied) == 0 && low >= kSector && low < file_size) {
        fits |= kFormL2 | (bitmap ? 0 : kFormExtendedL2);
      }
    } else if ((value & kL2Reserved) == 0 && offset < file_size) {
      fits |= kFormL2;
      if (offset != 0 && (value & kZeroFlag) == 0) {
        fits |= kFormL1 | (bitmap ? 0 : kFormExtendedL2);
        if ((value & kCopied) == 0) fits |= kFormRefcountTable;
      }
    }
    any_entry |= !bitmap;
    forms &= fits;
    if (forms == 0) return 0;
  }
  if (!any_entry) forms &= static_cast<uint8_t>(~kFormExtendedL2);
  return any ? forms : 0;
}

const TableRun* ScanResult::RunAt(uint64_t offset, uint64_t length) const {
  auto run = std::upper_bound(runs.begin(), runs.end(), offset,
                              [](uint64_t at, const TableRun& r) { return at < r.end(); });
  return run != runs.end() && run->offset < SaturatingAdd(offset, length) ? &*run : nullptr;
}

Result<ScanResult> ScanForTables(const ByteSource& source, const ProgressFn& progress) {
  return Scanner(source, progress).Run();
}

}  // namespace imgfsck::qcow2
