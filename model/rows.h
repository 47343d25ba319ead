// SPDX-License-Identifier: Apache-2.0
// The rows of the SQL model (schema.sql), as a format's walk yields them. Offsets and lengths are
// bytes everywhere. Small tables come as vectors; the three that grow with the image come through
// cursors that stream, with constraints pushed down to them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "model/finding.h"

namespace imgfsck {

struct ImageRow {
  std::string path, format, version;  // version: "2", "3", "dynamic" …
  uint64_t virtual_size = 0, file_size = 0, cluster_size = 0;
  uint64_t allocated = 0;  // bytes of the file that the host stores
};

struct FieldRow {
  std::string structure, name;  // "header", "cluster_bits"
  uint64_t host_offset = 0, length = 0;
  std::optional<uint64_t> value;  // nothing: not a number, or 2^63 and more (then see raw)
  std::string raw;                // hex of the bytes as stored ("" when longer than 64 bytes)
  std::string meaning;            // in words: "64 KiB", "dirty, corrupt"
};

// kind: header header-extension backing-name l1 l2 refcount-table refcount-block snapshot-table
// bitmap-directory bitmap-table bitmap-data luks bat footer footer-copy dynamic-header batmap
// block-bitmap locator cow-bitmap data compressed vm-state slack
struct RegionRow {
  uint64_t host_offset = 0, length = 0;
  std::string_view kind;  // a literal
  std::string owner;      // "active", a snapshot's id, a bitmap's name, or empty
  std::optional<uint64_t> guest_offset;
};

enum class MappingState : uint8_t { kUnallocated, kZero, kData, kCompressed };
std::string_view ToText(MappingState state);  // "unallocated", "zero", "data", "compressed"

struct MappingRow {
  std::string_view layer;  // owned by the ImageRows that yields it
  uint64_t guest_offset = 0, length = 0;
  MappingState state = MappingState::kUnallocated;
  std::optional<uint64_t> host_offset;  // where bytes, or reserved space, lie in the file
  std::optional<uint64_t> host_length;  // for compressed: bytes of the stored span
  uint32_t flags = 0;                   // kMapping… below
};
inline constexpr uint32_t kMappingCopied = 1;      // qcow2: COPIED is set
inline constexpr uint32_t kMappingDamaged = 2;     // the entry is invalid; read as the state says
inline constexpr uint32_t kMappingDataFile = 4;    // host_offset is in the external data file
inline constexpr uint32_t kMappingPastEnd = 8;     // the host range (partly) lies past the file
inline constexpr uint32_t kMappingEncrypted = 16;  // the host bytes are not the guest's

struct RefcountRow {
  uint64_t host_offset = 0, length = 0;  // a run of units with the same pair
  uint64_t stored = 0, referenced = 0;
};

struct SnapshotRow {
  std::string id, name;
  uint64_t host_offset = 0;  // of its table entry
  uint64_t l1_offset = 0, l1_entries = 0;
  uint64_t virtual_size = 0, vm_state_size = 0;
  int64_t date_seconds = 0;  // Unix time
  uint64_t date_nanoseconds = 0, vm_clock_nanoseconds = 0;
};

struct BitmapRow {
  std::string name;
  uint64_t host_offset = 0;  // of its directory entry
  uint64_t granularity = 0;  // guest bytes a bit
  uint64_t table_offset = 0, table_entries = 0;
  bool in_use = false, enabled = false, consistent = false;
};

struct BitmapRangeRow {  // dirty guest ranges
  std::string bitmap;
  uint64_t guest_offset = 0, length = 0;
};

struct LinkRow {
  std::string kind;                      // "backing", "parent", "data-file"
  std::string name;                      // as the image has it: untrusted
  std::string format;                    // "" when the image does not say
  uint64_t host_offset = 0, length = 0;  // of the name in the file
};

// Only rows that meet all of it are wanted. A cursor may yield more: the caller filters again.
struct RowQuery {
  std::optional<std::string> layer;
  uint64_t guest_begin = 0, guest_end = UINT64_MAX;  // rows overlapping [begin, end)
  uint64_t host_begin = 0, host_end = UINT64_MAX;
  bool per_cluster = false;  // one row a cluster instead of merged extents
};

// Fills batches of some thousand rows; an empty batch ends the stream.
template <class Row>
class RowCursor {
 public:
  virtual ~RowCursor() = default;
  virtual Status NextBatch(std::vector<Row>* batch) = 0;  // clears *batch first
};

// An annotated piece for `imgdump --hex`.
struct StructurePiece {
  std::string name;  // "header", "l1", "l2[3]", "footer" …
  HostRange host;
};

// What a format offers of an opened, possibly damaged image. Never stops at damage: what cannot be
// read shows as rows and findings. Thread-compatible: one caller at a time.
class ImageRows {
 public:
  virtual ~ImageRows() = default;
  virtual ImageRow Image() const = 0;
  virtual std::vector<FieldRow> Fields() const = 0;
  virtual std::vector<SnapshotRow> Snapshots() const { return {}; }
  virtual std::vector<BitmapRow> Bitmaps() const { return {}; }
  virtual std::unique_ptr<RowCursor<BitmapRangeRow>> BitmapRanges() const { return nullptr; }
  virtual std::vector<LinkRow> Links() const { return {}; }
  virtual std::vector<StructurePiece> Structures() const = 0;
  // Layers in order: "active" first, then the snapshots' ids.
  virtual std::vector<std::string> Layers() const { return {std::string(kActiveLayer)}; }

  // Ascending guest offset within a layer, layers in order; gaps come as unallocated rows.
  virtual std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const = 0;
  // Metadata regions first (ascending), then data in guest order.
  virtual std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const = 0;
};

}  // namespace imgfsck
