// SPDX-License-Identifier: Apache-2.0
// The header of a sparse VMDK: numbers are little endian, places are counted in sectors.
#pragma once

#include <optional>

#include "triage/policy/collector.h"

namespace imgfsck {

inline constexpr uint64_t kVmdkHeaderLength = 79;
inline constexpr uint64_t kVmdkTableAtEnd = UINT64_MAX;  // the directory's place is in the footer

struct VmdkHeader {
  uint64_t offset = 0;  // where this header stands
  uint32_t version = 0, flags = 0;
  uint64_t capacity = 0, grain = 0;                            // sectors
  uint64_t descriptor_sector = 0, descriptor_sectors = 0;      //
  uint32_t table_entries = 0;                                  // of a grain table
  uint64_t second_directory = 0, directory = 0, overhead = 0;  // sectors
  uint8_t unclean = 0;
  bool line_ends_kept = false;  // by whatever carried the file here
  uint16_t compression = 0;

  bool Flag(uint32_t bit) const { return (flags & bit) != 0; }
};

inline constexpr uint32_t kVmdkLineEnds = 1, kVmdkSecondDirectory = 2, kVmdkZeroGrains = 4,
                          kVmdkCompressed = 1 << 16, kVmdkMarkers = 1 << 17;

// Null when there is none at `offset`.
std::optional<VmdkHeader> ReadVmdkHeader(const ByteSource& file, uint64_t offset);

// The fields, then the grain directory, its tables, and every grain that they name. `header` is the
// one that says where the directory lies.
void JudgeVmdkTables(const VmdkHeader& header, ReasonCollector& out);

}  // namespace imgfsck
