// SPDX-License-Identifier: Apache-2.0
// Guest-level access to one image file: the interface that every format's driver meets and that
// imgio, convert and repair passes use. Backing files are composed above, in chain/: a driver never
// opens another file.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/byte_source.h"
#include "model/rows.h"

namespace imgfsck {

// The state of a run of guest bytes in one image file (its backing file not considered).
struct BlockStatus {
  uint64_t length = 0;  // guest bytes, at least 1
  MappingState state = MappingState::kUnallocated;
  std::optional<uint64_t> host_offset;  // plain data: where the first byte lies; zeros: where space
                                        // for it is kept
};

// What a driver can do; asked, not guessed.
struct Capabilities {
  bool write = false, zero = false, discard = false, grow = false, shrink = false;
  bool compressed_write = false, snapshots = false, bitmaps = false;
};

struct SnapshotInfo {
  std::string id, name;
  uint64_t virtual_size = 0, vm_state_size = 0;
  int64_t date_seconds = 0;
};

struct BitmapInfo {
  std::string name;
  uint64_t granularity = 0;  // guest bytes a bit
  bool enabled = false, in_use = false;
};

struct BackingReference {
  std::string name;    // as stored: untrusted
  std::string format;  // "" when the image does not say
  // The file's modification time and length, for formats that record them, when the caller looked.
  std::optional<int64_t> mtime_seconds = std::nullopt;  // Unix time
  std::optional<uint64_t> file_size = std::nullopt;     // bytes, with the time
  bool else_raw = false;  // it has no place to say so: what is not recognised is raw
};

struct OpenOptions {
  bool writable = false;
  std::string passphrase;            // for encrypted images
  std::string snapshot;              // name or id: that disk instead of the active one, read-only
  std::string size_policy = "auto";  // vpc: chs | current_size | auto
  std::string path;                  // for messages
  ByteStore* data_store = nullptr;   // qcow2 external data file, when the caller opened it
  const ByteSource* data_source = nullptr;
};

using CreateOptions = std::map<std::string, std::string>;  // qemu-img's option names

// Reads and Status may come from several threads while nobody writes; everything else from one.
class Driver {
 public:
  virtual ~Driver() = default;
  virtual std::string_view format() const = 0;
  virtual uint64_t VirtualSize() const = 0;  // bytes
  virtual uint64_t ClusterSize() const = 0;  // bytes: the unit of allocation
  virtual Capabilities capabilities() const = 0;

  virtual std::optional<BackingReference> Backing() const { return std::nullopt; }
  // What unallocated ranges read: fills the buffer with guest bytes (zeros past the base's end).
  // Without one they read as zeros.
  using BackingReader = std::function<Status(uint64_t offset, MutableBytes buffer)>;
  virtual void SetBackingReader(BackingReader reader) = 0;

  // [offset, offset + size) lies inside the disk, else kInvalid. Damage: kInvalid with the offset.
  virtual Status Read(uint64_t offset, MutableBytes buffer) = 0;
  virtual Result<BlockStatus> StatusAt(uint64_t offset, uint64_t limit) = 0;

  // kUnsupported unless the capability says otherwise.
  virtual Status Write(uint64_t offset, Bytes bytes);
  virtual Status WriteCompressed(uint64_t offset, Bytes bytes);  // whole clusters, or to the end
  virtual Status Zero(uint64_t offset, uint64_t length);
  virtual Status Discard(uint64_t offset, uint64_t length);
  virtual Status Flush();                     // durable, metadata included
  virtual Status Close() { return Flush(); }  // clean end; then only destruction
  virtual Status Resize(uint64_t virtual_size);
  virtual Status Empty();  // every range unallocated again: what a commit leaves of an overlay
  virtual Status SetBacking(const std::optional<BackingReference>& backing);  // header only

  virtual std::vector<SnapshotInfo> Snapshots() const { return {}; }
  virtual Status SnapshotCreate(std::string_view name);
  virtual Status SnapshotApply(std::string_view name_or_id);
  virtual Status SnapshotDelete(std::string_view name_or_id);

  virtual std::vector<BitmapInfo> Bitmaps() const { return {}; }
  virtual Status BitmapAdd(std::string_view name, uint64_t granularity, bool enabled);
  virtual Status BitmapRemove(std::string_view name);
  virtual Status BitmapClear(std::string_view name);
  virtual Status BitmapSetEnabled(std::string_view name, bool enabled);
  virtual Status BitmapMerge(std::string_view target, std::string_view source);
  // Dirty guest ranges, ascending and merged.
  virtual Result<std::vector<GuestRange>> BitmapDirty(std::string_view name);
};

}  // namespace imgfsck
