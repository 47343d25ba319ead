// SPDX-License-Identifier: Apache-2.0
// Which files of the guest own given ranges of its disk. Runs code for file systems that was not
// written for hostile disks, so only ever in a worker under limits and a filter of system calls.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
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

struct NameFacts {
  bool done = false;
  std::string trouble;  // why there are no names
  std::vector<GuestVolume> volumes;
  std::vector<NameHit> hits;        // ascending
  bool more = false;                // there are further ones
  std::vector<GuestRange> faulted;  // could not be read, and were looked at as zeros
};

struct GuestDisk {
  uint64_t size = 0;
  std::function<Status(uint64_t offset, MutableBytes buffer)> read;
};

// The names of what overlaps `wanted`. Never fails: what goes wrong is in the answer.
NameFacts NameRanges(const GuestDisk& disk, std::vector<GuestRange> wanted);

// False in a build without The Sleuth Kit's library: NameRanges() then only says so.
bool CanNameFiles();

}  // namespace imgfsck
