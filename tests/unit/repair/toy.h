// SPDX-License-Identifier: Apache-2.0
// A disk image format of sixteen sectors, just rich enough to be damaged and mended in every way
// that the repair engine distinguishes.
//
//   sector 0  'T', then: is the second table in use?, the same again
//   sector 1  a byte a guest sector 0–7: the file's sector that holds it, 0 for none
//   sector 2  every 32nd byte, for a sector of the file each: how often it is referred to; far
//             enough apart that two changed counts are two patches
//   sector 15 the second table, for guest sectors 8–15, when in use
#pragma once

#include <array>
#include <memory>

#include "repair/engine.h"
#include "tests/unit/fake_rows.h"

namespace imgfsck::toy {

inline constexpr uint64_t kSectors = 16;
inline constexpr uint64_t kSecondTable = 15;
inline constexpr uint64_t kEntries = 8;  // of a table

// Where the count of a sector of the file stands.
constexpr uint64_t CountOf(uint64_t sector) { return 2 * kSector + 32 * sector; }

// Header wrong; flag and its copy differ; count below, above the references; a sector used twice.
inline constexpr Problem kMagic = Problem::kQcow2HdrMagic;
inline constexpr Problem kFlag = Problem::kQcow2HdrLengthShort;
inline constexpr Problem kLow = Problem::kQcow2RefcountLow;
inline constexpr Problem kLeak = Problem::kQcow2RefcountLeak;
inline constexpr Problem kTwice = Problem::kQcow2L2DataCrosslink;

inline ByteVector SoundImage() {
  ByteVector bytes(kSectors * kSector);
  bytes[0] = 'T';
  const std::array<uint8_t, 4> places = {5, 3, 0, 7};
  std::copy(places.begin(), places.end(), bytes.begin() + kSector);
  for (uint64_t sector : {0u, 1u, 2u, 3u, 5u, 7u}) bytes[CountOf(sector)] = 1;
  for (uint64_t sector : {3u, 5u, 7u}) {
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(sector * kSector), kSector,
                static_cast<uint8_t>(0x40 + sector));
  }
  return bytes;
}

class Checker {
 public:
  Checker(const ByteSource& source, CheckReport* report) : report_(*report) {
    bytes_.resize(kSectors * kSector);
    static_cast<void>(ReadPadded(source, 0, bytes_));
    auto rows = std::make_unique<FakeRows>();
    rows_ = rows.get();
    report_.rows = std::move(rows);
    report_.file_size = source.Size();
  }
  void Run() {
    Structure("header", 0);
    if (bytes_[0] != 'T') return Add(kMagic, "header", 0, 1);
    if (bytes_[1] != bytes_[2]) Add(kFlag, "header", 1, 2);
    Structure("table", 1);
    Structure("counts", 2);
    std::array<uint8_t, kSectors> references{1, 1, 1};
    Walk("table", 1, 0, &references);
    if (bytes_[1] != 0) {
      references[kSecondTable] = 1;
      Structure("second-table", kSecondTable);
      Walk("second-table", kSecondTable, kEntries, &references);
    }
    for (uint64_t sector = 0; sector < kSectors; ++sector) {
      const uint8_t stored = bytes_[CountOf(sector)];
      if (stored < references[sector]) Add(kLow, "counts", sector * kSector, kSector);
      if (stored > references[sector]) Add(kLeak, "counts", sector * kSector, kSector);
    }
  }

 private:
  void Structure(std::string name, uint64_t sector) {
    rows_->structures.push_back({std::move(name), MakeHostRange(sector * kSector, kSector)});
  }
  void Add(Problem problem, std::string structure, uint64_t host, uint64_t length) {
    Finding finding;
    finding.problem = problem;
    finding.structure = std::move(structure);
    finding.host = MakeHostRange(host, length);
    report_.findings.Add(std::move(finding));
  }
  void Walk(const std::string& name, uint64_t table, uint64_t first,
            std::array<uint8_t, kSectors>* references) {
    for (uint64_t i = 0; i < kEntries; ++i) {
      const uint8_t place = bytes_[table * kSector + i];
      MappingRow row{
          kActiveLayer, (first + i) * kSector, kSector, MappingState::kUnallocated, {}, {}, 0};
      if (place != 0 && place < kSectors) {
        row.state = MappingState::kData;
        row.host_offset = place * kSector;
        if (++(*references)[place] > 1) Add(kTwice, name, table * kSector + i, 1);
      }
      rows_->mappings.push_back(row);
    }
  }

  CheckReport& report_;
  ByteVector bytes_;
  FakeRows* rows_ = nullptr;
};

inline Result<CheckReport> Check(const ByteSource& source) {
  static const Format format{"toy", {}, "", nullptr, nullptr, nullptr, nullptr, {}};
  CheckReport report;
  report.format = &format;
  Checker(source, &report).Run();
  report.findings.Sort();
  return report;
}

inline Status Put(Overlay& image, uint64_t offset, uint8_t value) {
  return image.WriteAt(offset, Bytes(&value, 1));
}
inline uint8_t Get(const ByteSource& image, uint64_t offset) {
  uint8_t value = 0;
  IMG_CHECK(ReadExact(image, offset, {&value, 1}).has_value());
  return value;
}

template <Problem problem>
bool Wants(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, {problem});
}
inline bool Always(const CheckReport&, const RepairOptions&) { return true; }

// Sets every count to what the findings say it should be.
inline bool WantsCounts(const CheckReport& report, const RepairOptions& options) {
  return WantedAny(report, options, {kLow, kLeak});
}
inline Result<PassOutcome> MendCounts(const PassContext& context) {
  PassOutcome outcome;
  for (const Finding& finding : context.report.findings.kept()) {
    if (finding.problem != kLow && finding.problem != kLeak) continue;
    for (uint64_t at = finding.host->offset.value; at < finding.host->end(); at += kSector) {
      IMG_RETURN_IF_ERROR(
          Put(context.image, CountOf(at / kSector), finding.problem == kLow ? 1 : 0));
      ++outcome.changes;
    }
  }
  return outcome;
}

// Believes the flag's copy: makes the second table visible again.
inline Result<PassOutcome> MendFlag(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 1, Get(context.image, 2)));
  PassOutcome outcome;
  outcome.changes = 1;
  return outcome;
}

inline Result<PassOutcome> MendMagic(const PassContext& context) {
  IMG_RETURN_IF_ERROR(Put(context.image, 0, 'T'));
  PassOutcome outcome;
  outcome.changes = 1;
  return outcome;
}

}  // namespace imgfsck::toy
