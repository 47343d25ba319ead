// SPDX-License-Identifier: Apache-2.0
// The snapshot table (sheet, section 8). Parsing keeps whatever fits and notes where it stopped.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/qcow2/header.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

struct Snapshot {
  uint64_t host_offset = 0;  // of the entry in the file
  uint64_t length = 0;       // of the entry without padding
  uint64_t l1_table_offset = 0;
  uint32_t l1_size = 0;  // entries
  uint32_t date_sec = 0, date_nsec = 0;
  uint64_t vm_clock_nsec = 0;
  uint32_t vm_state_size_32 = 0;
  uint32_t extra_data_size = 0;  // as stored
  bool extra_guessed = false;    // the stored size is absurd; `extra` follows what fits the names
  ByteVector extra;              // at most kMaxSnapshotExtra bytes of it
  std::string id, name;

  uint64_t vm_state_size() const;
  std::optional<uint64_t> disk_size() const;  // nothing when the extra data is too short for it
};

struct SnapshotTable {
  std::vector<Snapshot> entries;
  uint64_t offset = 0, end = 0;  // bytes used: [offset, end), last entry unpadded
  uint32_t declared = 0;         // nb_snapshots
  // Why fewer than declared were parsed: the entry number that stopped it, and what it was.
  enum class Stop { kNone, kPastEof, kOverrun, kCap, kCount } stop = Stop::kNone;
  uint64_t stopped_at = 0;
  uint64_t stopped_offset = 0;  // where that entry would begin
};

// `source` is read tolerantly; entries are read until one runs past the file or a limit.
// `entry_cap`: at most so many (QEMU's own limit by default).
SnapshotTable ParseSnapshots(const ByteSource& source, const Header& header,
                             uint64_t entry_cap = kMaxSnapshots);
// The entry at `offset`, when it fits into the file; nothing otherwise. An absurd extra-data size
// is replaced by the usual one under which id and name make sense.
std::optional<Snapshot> ParseSnapshotAt(const ByteSource& source, uint64_t offset);
// The entry at `offset` by its bytes where one of its lengths cannot be: extra data of a usual
// size, id and name as the text that stands there.
std::optional<Snapshot> ReparseSnapshotAt(const ByteSource& source, uint64_t offset);
bool IsSnapshotId(std::string_view id);               // printable, without blanks, not empty
ByteVector EncodeSnapshot(const Snapshot& snapshot);  // with padding to 8

}  // namespace imgfsck::qcow2
