// SPDX-License-Identifier: Apache-2.0
// A sparse VMDK's grain directory, grain tables and grains: whether they can be, where they lie,
// and whether they lie on one another. Nothing is decompressed. Memory and time are bounded by the
// file's length: no table is read twice, and beyond a number of grains their places are not kept.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <vector>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "triage/policy/vmdk_header.h"

namespace imgfsck {
namespace {

constexpr uint64_t kEntriesOfTable = 512;  // the only number there is
constexpr uint64_t kTableBytes = kEntriesOfTable * 4;
constexpr uint64_t kMostEntries = 2 << 20;  // of the directory: 64 TiB in grains of 64 KiB
constexpr uint64_t kMostGrainSectors = 64 * kMiB / kSector;
constexpr size_t kMostGrains = 16 << 20;  // whose places are kept: 1 TiB of them
constexpr uint64_t kMarkerLength = 12;    // before compressed bytes: place, length

enum class VmdkPart : uint8_t {
  kHeader,
  kFooter,
  kDescriptor,
  kDirectory,
  kSecondDirectory,
  kTable,
  kSecondTable,
  kGrain,
};
constexpr std::array<std::string_view, 8> kVmdkParts = {
    "the header",           "the footer",    "the descriptor",       "the grain directory",
    "its second directory", "a grain table", "a grain table's copy", "a grain"};

// Sectors of the file that something lies in.
struct VmdkClaim {
  uint64_t begin = 0;
  uint32_t length = 0;
  VmdkPart what{};
  bool marked = false;  // the sector before may say what follows

  uint64_t end() const { return begin + length; }
  auto operator<=>(const VmdkClaim&) const = default;
};

struct VmdkGrain {
  uint32_t sector = 0, sectors = 0;

  uint64_t end() const { return uint64_t{sector} + sectors; }
  auto operator<=>(const VmdkGrain&) const = default;
};

// How often something was seen, and where first.
struct VmdkTally {
  uint64_t count = 0, offset = 0, length = 0;
  std::string detail;

  template <class... Values>
  void Add(uint64_t at, uint64_t size, fmt::format_string<Values...> text, Values&&... values) {
    if (count++ > 0) return;
    offset = at;
    length = size;
    detail = fmt::format(text, std::forward<Values>(values)...);
  }
};

class VmdkTables {
 public:
  VmdkTables(const VmdkHeader& header, ReasonCollector& out)
      : header_(header),
        file_(out.file()),
        out_(out),
        sectors_(DivRoundUp(file_.Size(), kSector)) {}

  void Judge() {
    if (!Fields()) return;
    Take(0, 1, VmdkPart::kHeader);
    if (header_.offset != 0) {  // between its marker and the mark of the end
      Take(header_.offset / kSector - 1, 3, VmdkPart::kFooter);
    }
    Take(header_.descriptor_sector, header_.descriptor_sectors, VmdkPart::kDescriptor);
    if (!Directory(header_.directory, &tables_)) return;
    const uint64_t second = header_.second_directory;
    if (header_.Flag(kVmdkSecondDirectory) && second != 0 && second != header_.directory) {
      if (!Directory(second, &second_)) return;
      Compare();
    }
    Tables();
    Overlaps();
    Unclaimed();
    Report();
  }

 private:
  // In a stream a sector before each table says that one follows.
  void Take(uint64_t begin, uint64_t length, VmdkPart what) {
    if (begin >= sectors_) return;
    const bool table = what >= VmdkPart::kDirectory;
    claims_.push_back({begin, static_cast<uint32_t>(std::min({length, sectors_ - begin, kMost})),
                       what, table && header_.Flag(kVmdkMarkers)});
  }

  // False: no table can be found by such numbers.
  bool Fields() {
    const uint64_t at = header_.offset;
    const bool grain_known = std::has_single_bit(header_.grain);
    if (!grain_known) {
      out_.AddAt(ReasonCode::kMemSafety, at + 20, 8,
                 fmt::format("grains of {} sectors", header_.grain));
    } else if (header_.grain > kMostGrainSectors) {
      out_.AddAt(ReasonCode::kDosTable, at + 20, 8,
                 fmt::format("grains of {}", HumanSize(SaturatingMul(header_.grain, kSector))));
    }
    if (header_.table_entries != kEntriesOfTable) {
      out_.AddAt(ReasonCode::kMemSafety, at + 44, 4,
                 fmt::format("{} entries in a grain table", header_.table_entries));
    }
    if (!grain_known || header_.grain > kMostGrainSectors ||
        header_.table_entries != kEntriesOfTable) {
      return false;
    }
    entries_ = DivRoundUp(header_.capacity, header_.grain * kEntriesOfTable);
    if (entries_ > kMostEntries) {
      out_.AddAt(ReasonCode::kDosTable, at + 12, 8,
                 fmt::format("a grain directory of {} entries", entries_));
      return false;
    }
    if (SaturatingMul(header_.overhead, kSector) > file_.Size()) {
      out_.AddAt(ReasonCode::kDamaged, at + 64, 8, "the file is shorter than its own tables");
    }
    return true;
  }

  // Entries that are in use: index -> sector of the table.
  bool Directory(uint64_t sector, std::vector<uint32_t>* tables) {
    const uint64_t length = entries_ * 4, offset = SaturatingMul(sector, kSector);
    const bool second = tables == &second_;
    const uint64_t field = header_.offset + (second ? 48 : 56);
    if (sector == 0 || !RangeFits(offset, length, file_.Size())) {
      out_.AddAt(ReasonCode::kDamaged, field, 8,
                 fmt::format("the grain directory at {} is not in the file", Hex(offset)));
      return false;
    }
    ByteVector bytes(length);
    if (!ReadExact(file_, offset, bytes)) {
      out_.AddAt(ReasonCode::kUnreadable, offset, length, "the grain directory");
      return false;
    }
    tables->resize(entries_);
    for (uint64_t i = 0; i < entries_; ++i) (*tables)[i] = LeAt<uint32_t>(bytes, i * 4);
    Take(sector, DivRoundUp(length, kSector),
         second ? VmdkPart::kSecondDirectory : VmdkPart::kDirectory);
    return true;
  }

  bool ReadTable(uint64_t sector, MutableBytes table) const {
    return RangeFits(sector * kSector, table.size(), file_.Size()) &&
           ReadExact(file_, sector * kSector, table);
  }

  // Readers go by either; some refuse the disk when they differ.
  void Compare() {
    std::array<uint8_t, kTableBytes> one{}, other{};
    uint64_t differ = 0, first = 0;
    for (uint64_t i = 0; i < entries_ && !StopRequested(); ++i) {
      if (tables_[i] == second_[i]) continue;
      const bool same = tables_[i] != 0 && second_[i] != 0 && ReadTable(tables_[i], one) &&
                        ReadTable(second_[i], other) && one == other;
      if (!same && differ++ == 0) first = i;
    }
    if (differ == 0) return;
    out_.AddAt(ReasonCode::kDamaged, header_.second_directory * kSector + first * 4, 4,
               fmt::format("{} grain tables differ from their copies", differ));
  }

  void Tables() {
    // In the order of the file, each but once.
    std::vector<std::pair<uint32_t, uint32_t>> order;  // sector, index
    for (uint32_t i = 0; i < entries_; ++i) {
      if (tables_[i] != 0) order.push_back({tables_[i], i});
    }
    std::ranges::sort(order);
    for (size_t k = 0; k < order.size() && !StopRequested(); ++k) {
      const auto [sector, index] = order[k];
      const uint64_t entry = header_.directory * kSector + uint64_t{index} * 4;
      if (k > 0 && order[k - 1].first == sector) {
        shared_.Add(entry, 4, "two ranges of the disk have one grain table, at {}",
                    Hex(sector * kSector));
        continue;
      }
      Take(sector, kTableBytes / kSector, VmdkPart::kTable);
      Table(entry, sector, index);
    }
    for (size_t i = 0; i < second_.size(); ++i) {
      const uint32_t sector = second_[i];
      if (sector == 0 || sector == tables_[i]) continue;
      Take(sector, kTableBytes / kSector, VmdkPart::kSecondTable);
    }
    std::ranges::sort(claims_);
    // One table many times was told of.
    claims_.erase(std::unique(claims_.begin(), claims_.end()), claims_.end());
  }

  void Table(uint64_t entry, uint64_t sector, uint64_t index) {
    std::array<uint8_t, kTableBytes> bytes{};
    if (!RangeFits(sector * kSector, bytes.size(), file_.Size())) {
      return outside_.Add(entry, 4, "a grain table at {}", Hex(sector * kSector));
    }
    if (seen_ > sectors_ || IsHole(sector * kSector, bytes.size())) return;
    if (!ReadExact(file_, sector * kSector, bytes)) {
      return unreadable_.Add(sector * kSector, bytes.size(), "a grain table");
    }
    for (uint64_t i = 0; i < kEntriesOfTable; ++i) {
      const uint32_t place = LeAt<uint32_t>(bytes, i * 4);
      if (place == 0 || (place == 1 && header_.Flag(kVmdkZeroGrains))) continue;
      // A grain has a sector at least: what is more is counted twice.
      if (++seen_ > sectors_) return;
      OneGrain(sector * kSector + i * 4, place, (index * kEntriesOfTable + i) * header_.grain);
    }
  }

  // Nobody needs gigabytes of zeros read.
  bool IsHole(uint64_t offset, uint64_t length) {
    if (offset >= hole_.offset && offset + length <= hole_.offset + hole_.length) return true;
    auto extent = file_.ExtentAt(offset);
    if (extent && extent->hole) hole_ = *extent;
    return extent && extent->hole && extent->length >= length;
  }

  void OneGrain(uint64_t entry, uint32_t sector, uint64_t disk_sector) {
    const uint64_t offset = uint64_t{sector} * kSector;
    if (disk_sector >= header_.capacity) {
      beyond_.Add(entry, 4, "a grain behind the end of the disk, at its {}",
                  Hex(disk_sector * kSector));
    }
    uint64_t length =
        std::min(header_.grain, header_.capacity - std::min(disk_sector, header_.capacity)) *
        kSector;
    if (offset >= file_.Size()) return outside_.Add(entry, 4, "a grain at {}", Hex(offset));
    if (header_.Flag(kVmdkCompressed)) {
      length = Marker(entry, offset, disk_sector);
    } else if (!RangeFits(offset, length, file_.Size())) {
      outside_.Add(entry, 4, "a part of the grain at {}", Hex(offset));
    }
    if (grains_.size() >= kMostGrains) {
      too_many_ = true;
    } else if (length > 0) {
      grains_.push_back({sector, static_cast<uint32_t>(DivRoundUp(length, kSector))});
    }
  }

  // What stands before a grain's compressed bytes. The length of both; 0 where that is unknown.
  uint64_t Marker(uint64_t entry, uint64_t offset, uint64_t disk_sector) {
    if (!header_.Flag(kVmdkMarkers)) {
      unmarked_ = true;
      return 0;
    }
    std::array<uint8_t, kMarkerLength> marker{};
    if (!RangeFits(offset, kMarkerLength, file_.Size())) {
      outside_.Add(entry, 4, "a part of the grain at {}", Hex(offset));
      return 0;
    }
    if (!ReadExact(file_, offset, marker)) {
      unreadable_.Add(offset, kMarkerLength, "a grain's marker");
      return 0;
    }
    const uint32_t size = LeAt<uint32_t>(marker, 8);
    const uint64_t length = kMarkerLength + size;
    // Readers have room for two grains, marker included.
    if (size == 0 || length > 2 * header_.grain * kSector) {
      marker_.Add(offset, kMarkerLength, "{} compressed bytes of a grain of {}", size,
                  HumanSize(header_.grain * kSector));
      return 0;
    }
    if (!RangeFits(offset, length, file_.Size())) {
      outside_.Add(entry, 4, "a part of the {} compressed bytes at {}", size, Hex(offset));
    }
    if (LeAt<uint64_t>(marker, 0) != disk_sector) {
      elsewhere_.Add(offset, 8, "the table says {} of the disk, the grain {}",
                     Hex(disk_sector * kSector),
                     Hex(SaturatingMul(LeAt<uint64_t>(marker, 0), kSector)));
    }
    return length;
  }

  // Every two that lie on one another are neighbours in the file's order, or one between them lies
  // on the first as well.
  void Overlaps() {
    std::ranges::sort(grains_);
    VmdkClaim claim;  // that reaches furthest, so far
    VmdkGrain grain;
    size_t next = 0;
    auto take_grain = [&](const VmdkGrain& now) {
      const uint64_t offset = uint64_t{now.sector} * kSector;
      if (now.sector < grain.end()) {
        crossed_.Add(offset, now.sectors * kSector, "two grains at {}", Hex(offset));
      }
      if (now.sector < claim.end()) Clash(now.sector, now.sectors, VmdkPart::kGrain, claim.what);
      if (now.end() > grain.end()) grain = now;
    };
    for (const VmdkClaim& now : claims_) {
      while (next < grains_.size() && grains_[next].sector <= now.begin) {
        take_grain(grains_[next++]);
      }
      if (now.begin < claim.end()) Clash(now.begin, now.length, now.what, claim.what);
      if (now.begin < grain.end()) Clash(now.begin, now.length, now.what, VmdkPart::kGrain);
      if (now.end() > claim.end()) claim = now;
    }
    while (next < grains_.size()) take_grain(grains_[next++]);
  }

  void Clash(uint64_t sector, uint64_t sectors, VmdkPart what, VmdkPart on) {
    const bool name = what == VmdkPart::kDescriptor || on == VmdkPart::kDescriptor;
    (name ? on_name_ : on_table_)
        .Add(sector * kSector, sectors * kSector, "{} at {} lies on {}",
             kVmdkParts[static_cast<size_t>(what)], Hex(sector * kSector),
             kVmdkParts[static_cast<size_t>(on)]);
  }

  // Bytes that belong to nothing: the disk's former content, or somebody's message.
  void Unclaimed() {
    if (too_many_ || unmarked_ || seen_ > sectors_ || StopRequested()) return;
    uint64_t at = 0;
    size_t next = 0;
    auto until = [&](uint64_t begin, uint64_t end) {
      if (begin > at) Gap(at, begin);
      at = std::max(at, end);
    };
    auto grains_before = [&](uint64_t sector) {
      for (; next < grains_.size() && grains_[next].sector <= sector; ++next) {
        until(grains_[next].sector, grains_[next].end());
      }
    };
    for (const VmdkClaim& claim : claims_) {
      const uint64_t begin = claim.begin - (claim.marked && claim.begin > 0 ? 1 : 0);
      grains_before(begin);
      until(begin, claim.end());
    }
    grains_before(UINT64_MAX);
    until(sectors_, sectors_);
  }

  void Gap(uint64_t begin, uint64_t end) {
    const uint64_t stop = std::min(SaturatingMul(end, kSector), file_.Size());
    for (uint64_t at = begin * kSector; at < stop && !StopRequested();) {
      auto extent = file_.ExtentAt(at);
      if (extent && extent->hole && extent->length > 0) {
        at += std::min(stop - at, extent->length);
        continue;
      }
      const uint64_t length = std::min<uint64_t>(stop - at, buffer_.size());
      const MutableBytes bytes = MutableBytes(buffer_).first(length);
      if (!ReadExact(file_, at, bytes)) {
        unreadable_.Add(at, length, "what lies between the grains");
      } else {
        for (uint64_t sector = 0; sector < length; sector += kSector) {
          const uint64_t size = std::min(kSector, length - sector);
          if (AllZero(Bytes(bytes).subspan(sector, size))) continue;
          remnant_.Add(at + sector, size, "the first at {}", Hex(at + sector));
          left_over_ += size;
        }
      }
      at += length;
    }
  }

  void Report() {
    auto report = [&](ReasonCode code, const VmdkTally& tally) {
      if (tally.count == 0) return;
      out_.AddAt(code, tally.offset, tally.length,
                 tally.count == 1 ? tally.detail
                                  : fmt::format("{} (of {} such)", tally.detail, tally.count));
    };
    auto with = [](std::string_view text, VmdkTally tally) {
      tally.detail = std::string(text) + tally.detail;
      return tally;
    };
    report(ReasonCode::kDamaged, with("behind the end of the file: ", outside_));
    if (seen_ > sectors_) {
      out_.AddAt(ReasonCode::kDosTable, header_.offset, kVmdkHeaderLength,
                 "the tables name more grains than the file has sectors");
    }
    report(ReasonCode::kDamaged, beyond_);
    report(ReasonCode::kDamaged, shared_);
    report(ReasonCode::kDamaged, crossed_);
    report(ReasonCode::kMetaOverlap, on_table_);
    report(ReasonCode::kNameOverlap, on_name_);
    report(ReasonCode::kMemSafety, marker_);
    report(ReasonCode::kPolyglot, with("readers disagree where a grain belongs: ", elsewhere_));
    report(ReasonCode::kUnreadable, unreadable_);
    if (remnant_.count > 0) {
      remnant_.count = 1;
      report(ReasonCode::kRemnant,
             with(fmt::format("{} bytes belong to nothing, ", left_over_), remnant_));
    }
    if (too_many_) {
      out_.Add(ReasonCode::kTablesUnchecked,
               fmt::format("more than {} grains: whether they overlap", kMostGrains));
    }
    if (unmarked_) {
      out_.Add(ReasonCode::kTablesUnchecked, "compressed grains that do not say how long they are");
    }
  }

  static constexpr uint64_t kMost = UINT32_MAX;

  const VmdkHeader& header_;
  const ByteSource& file_;
  ReasonCollector& out_;
  const uint64_t sectors_;  // of the file
  uint64_t entries_ = 0, seen_ = 0, left_over_ = 0;
  std::vector<uint32_t> tables_, second_;
  std::vector<VmdkClaim> claims_;
  std::vector<VmdkGrain> grains_;
  HostExtent hole_;
  ByteVector buffer_ = ByteVector(64 * kKiB);
  bool too_many_ = false, unmarked_ = false;
  VmdkTally outside_, beyond_, shared_, crossed_, on_table_, on_name_, marker_, elsewhere_,
      unreadable_, remnant_;
};

}  // namespace

std::optional<VmdkHeader> ReadVmdkHeader(const ByteSource& file, uint64_t offset) {
  std::array<uint8_t, kVmdkHeaderLength> bytes{};
  if (!ReadExact(file, offset, bytes) || AsText(bytes).substr(0, 4) != "KDMV") return std::nullopt;
  VmdkHeader header;
  header.offset = offset;
  header.version = LeAt<uint32_t>(bytes, 4);
  header.flags = LeAt<uint32_t>(bytes, 8);
  header.capacity = LeAt<uint64_t>(bytes, 12);
  header.grain = LeAt<uint64_t>(bytes, 20);
  header.descriptor_sector = LeAt<uint64_t>(bytes, 28);
  header.descriptor_sectors = LeAt<uint64_t>(bytes, 36);
  header.table_entries = LeAt<uint32_t>(bytes, 44);
  header.second_directory = LeAt<uint64_t>(bytes, 48);
  header.directory = LeAt<uint64_t>(bytes, 56);
  header.overhead = LeAt<uint64_t>(bytes, 64);
  header.unclean = bytes[72];
  header.line_ends_kept = AsText(bytes).substr(73, 4) == "\n \r\n";
  header.compression = LeAt<uint16_t>(bytes, 77);
  return header;
}

void JudgeVmdkTables(const VmdkHeader& header, ReasonCollector& out) {
  VmdkTables(header, out).Judge();
}

}  // namespace imgfsck
