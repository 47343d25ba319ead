// SPDX-License-Identifier: Apache-2.0
// Which files of the guest own ranges of its disk, as plain data: found out by a process of its own
// (triage/names), read by the reports. Paths come from the guest: any bytes.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace imgfsck {

// A partition, or the whole disk.
struct GuestVolume {
  uint64_t offset = 0, length = 0;
  std::string type;     // "ntfs", "ext4" …; empty: nothing known
  bool mapped = false;  // its files were looked at
  std::string trouble;  // why not, or why not all of them
};

enum class NameKind : uint8_t {
  kFile,         // content of a file or directory
  kResident,     // the record in the $MFT that holds all of a small file
  kMetadata,     // the file system's own: nobody's content
  kUnallocated,  // free, as far as the file system knows
  kEnd,
};
std::string_view ToText(NameKind kind);

struct NameHit {
  GuestRange range;
  uint32_t volume = 0;  // index
  NameKind kind{};
  std::string path;                     // any bytes; empty: nobody's
  std::optional<uint64_t> file_offset;  // of the range's first byte in that file
};

// What of a set of ranges lies in one file.
struct NamedShare {
  uint32_t volume = 0;  // index
  NameKind kind{};
  std::string path;
  uint64_t bytes = 0;
};

// The files in a set of ranges, such as those that a bitmap calls dirty.
struct RangeSetNames {
  std::string what;                // the bitmap's name …
  std::string trouble;             // why its ranges are not known, or have no names
  uint64_t ranges = 0, bytes = 0;  // of it
  std::vector<NamedShare> shares;  // the most bytes first
  bool more = false;               // there are further ones
};

struct NameFacts {
  bool done = false;
  std::string trouble;  // why there are no names
  std::vector<GuestVolume> volumes;
  std::vector<NameHit> hits;        // ascending
  bool more = false;                // there are further ones
  std::vector<GuestRange> faulted;  // could not be read, and were looked at as zeros
  std::vector<RangeSetNames> sets;  // dirty bitmaps, differences …
};

// What asks for names: everything that overlaps `ranges`; of each set, the files alone.
struct NameQuery {
  struct Set {
    std::string what;
    std::vector<GuestRange> ranges;
  };
  std::vector<GuestRange> ranges;
  std::vector<Set> sets;
};

// The hits by file, most bytes first.
std::vector<NamedShare> SharesOf(const NameFacts& facts);

// Calls use(hit, begin, end) for every hit that has a part in [begin, end), ascending.
template <class Use>
void HitsIn(const NameFacts& facts, const GuestRange& range, Use use) {
  for (const NameHit& hit : facts.hits) {
    if (hit.range.offset.value >= range.end()) break;
    if (hit.range.end() <= range.offset.value) continue;
    use(hit, std::max(hit.range.offset.value, range.offset.value),
        std::min(hit.range.end(), range.end()));
  }
}

}  // namespace imgfsck
