// SPDX-License-Identifier: Apache-2.0
// The record that makes a commit atomic and reversible: an SQLite database with the old and the new
// bytes of every patch, the old and new length of the image and what identifies it; and beside the
// image a small pointer file `IMAGE.imgfsck-journal` that names the record while a commit is under
// way, so that an interrupted one is found without being told.
//
// States: `prepared` (complete and durable, image maybe partly patched), `applied` (image is new),
// `rolled-back` (image is old again). Nothing is written to the image before `prepared` is durable.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "io/file.h"
#include "io/overlay.h"

namespace imgfsck {

inline constexpr std::string_view kUndoSuffix = ".imgfsck-undo";
inline constexpr std::string_view kJournalSuffix = ".imgfsck-journal";

class UndoRecord {
 public:
  enum class State { kPrepared, kApplied, kRolledBack };

  // Writes a new record (kExists when the file is there) of every patch of `overlay` over
  // `overlay.base()`, durable when it returns. A record that could not be completed is removed.
  static Result<std::unique_ptr<UndoRecord>> Create(const std::string& path,
                                                    const std::string& image_path,
                                                    const Overlay& overlay);
  // Bytes of disk that Create would need, to tell before anything starts.
  static Result<uint64_t> SpaceNeeded(const std::string& image_path, const Overlay& overlay);
  // Opens an existing record; kInvalid when it is not a complete record of ours. Its contents are
  // checked against the hash stored in it: a record is untrusted input too.
  static Result<std::unique_ptr<UndoRecord>> Open(const std::string& path);
  ~UndoRecord();

  State state() const;
  Status SetState(State state);
  uint64_t old_size() const;
  uint64_t new_size() const;
  uint64_t patch_count() const;
  uint64_t bytes() const;  // sum of new bytes
  const std::string& path() const { return path_; }
  const std::string& image_path() const;  // as given when the record was made

  struct Patch {
    uint64_t offset;
    ByteVector old_bytes, new_bytes;  // each shorter where the image of that time ends
  };
  Status ForEachPatch(const std::function<Status(const Patch&)>& visit) const;

  // Every patched byte and the length are the new (`kNew`), the old, or a sector-wise mixture of
  // the two (`kMixed`); `kForeign`: somebody else changed the image since, or it is another one
  // (its first sector, with the patches undone, is not what the record remembers).
  enum class Match { kOld, kNew, kMixed, kForeign };
  Result<Match> Compare(const ByteSource& image) const;
  Status WriteNew(ByteStore& image) const;  // patches, length, sync; safe to repeat
  Status WriteOld(ByteStore& image) const;  // the same backwards

 private:
  struct Impl;
  Status CopyPatches(const Overlay& overlay);
  Status LoadMeta();
  Status CheckContent() const;
  explicit UndoRecord(std::string path, std::unique_ptr<Impl> impl);
  std::string path_;
  std::unique_ptr<Impl> impl_;
};

// The pointer file, beside the image itself even where `image_path` is a symbolic link. Write is
// all or nothing and durable when it returns; kExists when there is one already. Read answers with
// nothing when there is none, and with kInvalid when it is none of ours. A record that moved
// together with its image is found beside it.
Status WriteJournalPointer(const std::string& image_path, const std::string& undo_path);
Result<std::optional<std::string>> ReadJournalPointer(const std::string& image_path);
Status RemoveJournalPointer(const std::string& image_path);

// IMAGE.imgfsck-undo, or .2, .3 … when that is taken.
std::string FreeUndoPath(const std::string& image_path);

}  // namespace imgfsck
