// SPDX-License-Identifier: Apache-2.0
#include "repair/transaction.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/interrupt.h"
#include "base/text.h"
#include "io/lock.h"
#include "repair/engine.h"
#include "repair/space.h"

namespace imgfsck {
namespace {

using Match = UndoRecord::Match;
using State = UndoRecord::State;

Status At(const std::function<Status(CommitStep)>& at_step, CommitStep step) {
  return at_step ? at_step(step) : Ok();
}

Error Conflict(std::string message) { return {ErrorCode::kConflict, std::move(message), {}}; }

Error WithHint(Error error, std::string_view hint) {
  error.message += hint;
  return error;
}

struct LockedImage {
  std::unique_ptr<FileStore> store;
  std::unique_ptr<ImageLock> lock;  // released before the file is closed
};

Result<LockedImage> OpenLocked(const std::string& path) {
  LockedImage image;
  IMG_ASSIGN_OR_RETURN(image.store, FileStore::Open(path, FileStore::Mode::kExisting));
  IMG_ASSIGN_OR_RETURN(image.lock, ImageLock::Acquire(image.store->fd(), path));
  return image;
}

// A pointer that cannot be written is no obstacle where the caller knows the record's name.
Status PointTo(const std::string& image_path, const std::string& undo_path, bool record_is_known,
               std::vector<std::string>* notes) {
  auto status = WriteJournalPointer(image_path, undo_path);
  if (status) return status;
  if (status.error().code == ErrorCode::kPermission && record_is_known) {
    notes->push_back(fmt::format(
        "the folder of {} cannot be written: should this repair be interrupted, use --recover "
        "--undo {}",
        Printable(image_path), Printable(undo_path)));
    return Ok();
  }
  if (status.error().code == ErrorCode::kExists) {
    return WithHint(std::move(status).error(),
                    "; an earlier repair was interrupted, run imgfsck --recover first");
  }
  if (status.error().code == ErrorCode::kPermission) {
    return WithHint(std::move(status).error(),
                    "; use --undo FILE or --output FILE to work elsewhere");
  }
  return status;
}

// Writing failed in the middle: everything back as it was, at once.
Error TakeBack(ByteStore& image, UndoRecord& record, const std::string& image_path, Error failure) {
  const std::string undo_path = record.path();
  if (auto undone = record.WriteOld(image); !undone) {
    return WithHint(std::move(failure),
                    fmt::format("; and the old bytes could not be put back ({}): the image is "
                                "partly changed, {} holds what it takes, run imgfsck --recover",
                                undone.error().message, Printable(undo_path)));
  }
  // The pointer first: as long as it is there, the record must be too.
  if (auto removed = RemoveJournalPointer(image_path); removed) unlink(undo_path.c_str());
  return WithHint(std::move(failure), "; the image is as it was before");
}

Status Carry(ByteStore& image, UndoRecord& record, const std::string& image_path,
             const CommitOptions& options, std::vector<std::string>* notes) {
  if (auto status = record.WriteNew(image); !status) {
    return TakeBack(image, record, image_path, std::move(status).error());
  }
  IMG_RETURN_IF_ERROR(At(options.at_step, CommitStep::kPatched));
  if (auto status = record.SetState(State::kApplied); !status) {
    return TakeBack(image, record, image_path, std::move(status).error());
  }
  IMG_RETURN_IF_ERROR(At(options.at_step, CommitStep::kApplied));
  if (auto status = RemoveJournalPointer(image_path); !status) {
    notes->push_back(
        fmt::format("the repair is complete, but its journal pointer is in the way "
                    "({}): should a check call it interrupted, run imgfsck --recover",
                    status.error().message));
  }
  return At(options.at_step, CommitStep::kPointerRemoved);
}

Status SameAsChecked(const std::string& path, const Overlay& overlay, const CheckedState& checked) {
  IMG_ASSIGN_OR_RETURN(const auto now, FileSource::Open(path));
  IMG_ASSIGN_OR_RETURN(const FileIdentity identity, now->Identity());
  uint64_t patches = 0, bytes = 0;
  std::string hash;
  IMG_RETURN_IF_ERROR(MeasurePatches(overlay, &patches, &bytes, &hash));
  if (identity == checked.identity && hash == checked.patch_hash) return Ok();
  return Conflict(fmt::format(
      "{} changed since it was checked; nothing was written, run imgfsck again", Printable(path)));
}

Result<std::unique_ptr<UndoRecord>> OpenNamedRecord(const std::string& path) {
  auto record = UndoRecord::Open(path);
  if (!record && record.error().code == ErrorCode::kNotFound) {
    return Conflict(fmt::format("the undo record {} that the interrupted repair needs is missing",
                                Printable(path)));
  }
  return record;
}

Error Foreign(const std::string& image_path, const std::string& undo_path) {
  return Conflict(
      fmt::format("{} was changed by somebody else since the repair that {} records; nothing was "
                  "written",
                  Printable(image_path), Printable(undo_path)));
}

}  // namespace

Result<CommitResult> Commit(const std::string& image_path, const Overlay& overlay,
                            const CheckedState& checked, const CommitOptions& options) {
  IMG_ASSIGN_OR_RETURN(const LockedImage image, OpenLocked(image_path));
  IMG_RETURN_IF_ERROR(SameAsChecked(image_path, overlay, checked));
  return CommitTo(*image.store, image_path, overlay, options);
}

Result<CommitResult> CommitTo(ByteStore& image, const std::string& image_path,
                              const Overlay& overlay, const CommitOptions& options) {
  CommitResult result;
  IMG_RETURN_IF_ERROR(At(options.at_step, CommitStep::kLocked));
  const bool named = !options.undo_path.empty();
  const std::string undo_path = named ? options.undo_path : FreeUndoPath(image_path);
  IMG_RETURN_IF_ERROR(CheckSpaceForCommit(image_path, undo_path, overlay));
  auto record = UndoRecord::Create(undo_path, image_path, overlay);
  if (!record) {
    const bool hint = record.error().code == ErrorCode::kPermission;
    return WithHint(std::move(record).error(),
                    hint ? "; use --undo FILE or --output FILE to work elsewhere" : "");
  }
  IMG_RETURN_IF_ERROR(At(options.at_step, CommitStep::kRecordDurable));
  auto ready = CheckStop();
  if (ready) ready = PointTo(image_path, undo_path, named, &result.notes);
  if (!ready) {
    record->reset();
    unlink(undo_path.c_str());
    return Error(std::move(ready).error());
  }
  IMG_RETURN_IF_ERROR(At(options.at_step, CommitStep::kPointerDurable));
  IMG_RETURN_IF_ERROR(Carry(image, **record, image_path, options, &result.notes));
  record->reset();
  if (options.keep_undo) {
    result.undo_path = undo_path;
  } else if (unlink(undo_path.c_str()) != 0) {
    result.notes.push_back(fmt::format("{} could not be removed", Printable(undo_path)));
  }
  return result;
}

Result<std::optional<std::string>> InterruptedRepair(const std::string& image_path) {
  return ReadJournalPointer(image_path);
}

Result<RecoverOutcome> Recover(const std::string& image_path, const std::string& undo_path) {
  IMG_ASSIGN_OR_RETURN(const auto pointed, ReadJournalPointer(image_path));
  if (!pointed && undo_path.empty()) return RecoverOutcome::kNothingToDo;
  IMG_ASSIGN_OR_RETURN(const LockedImage image, OpenLocked(image_path));
  return RecoverTo(*image.store, image_path, undo_path);
}

Result<RecoverOutcome> RecoverTo(ByteStore& image, const std::string& image_path,
                                 const std::string& undo_path) {
  IMG_ASSIGN_OR_RETURN(const auto pointed, ReadJournalPointer(image_path));
  if (!pointed && undo_path.empty()) return RecoverOutcome::kNothingToDo;
  const std::string& path = pointed ? *pointed : undo_path;
  IMG_ASSIGN_OR_RETURN(const auto record, OpenNamedRecord(path));
  if (record->state() == State::kPrepared) {
    IMG_ASSIGN_OR_RETURN(const Match match, record->Compare(image));
    if (match == Match::kForeign) return Foreign(image_path, path);
    IMG_RETURN_IF_ERROR(record->WriteNew(image));
    IMG_RETURN_IF_ERROR(record->SetState(State::kApplied));
  } else if (!pointed) {
    return RecoverOutcome::kNothingToDo;
  }
  IMG_RETURN_IF_ERROR(RemoveJournalPointer(image_path));
  return RecoverOutcome::kFinished;
}

Result<RollbackOutcome> Rollback(const std::string& image_path, const std::string& undo_path) {
  IMG_ASSIGN_OR_RETURN(const LockedImage image, OpenLocked(image_path));
  return RollbackTo(*image.store, image_path, undo_path);
}

Result<RollbackOutcome> RollbackTo(ByteStore& image, const std::string& image_path,
                                   const std::string& undo_path,
                                   const std::function<Status(CommitStep)>& at_step) {
  IMG_ASSIGN_OR_RETURN(const auto record, UndoRecord::Open(undo_path));
  IMG_ASSIGN_OR_RETURN(const auto pointed, ReadJournalPointer(image_path));
  IMG_ASSIGN_OR_RETURN(const Match match, record->Compare(image));
  std::error_code unequal;
  const bool other = pointed && !std::filesystem::equivalent(*pointed, undo_path, unequal);
  if (other || match == Match::kMixed || (pointed && match == Match::kOld)) {
    return Conflict(fmt::format("a repair of {} was interrupted: run imgfsck --recover first",
                                Printable(image_path)));
  }
  if (match == Match::kForeign) return Foreign(image_path, undo_path);
  if (match == Match::kOld) return RollbackOutcome::kNothingToDo;
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kLocked));
  std::vector<std::string> ignored;
  if (!pointed) IMG_RETURN_IF_ERROR(PointTo(image_path, undo_path, true, &ignored));
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kPointerDurable));
  // "Maybe partly patched": from here on a crash leaves something that Recover() finishes.
  IMG_RETURN_IF_ERROR(record->SetState(State::kPrepared));
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kRecordDurable));
  if (auto status = record->WriteOld(image); !status) {
    Error failure = std::move(status).error();
    if (auto again = record->WriteNew(image); again && record->SetState(State::kApplied)) {
      IMG_RETURN_IF_ERROR(RemoveJournalPointer(image_path));
      return WithHint(std::move(failure), "; the image is as the repair left it");
    }
    return WithHint(std::move(failure), "; the image is between two states: run --recover");
  }
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kPatched));
  IMG_RETURN_IF_ERROR(record->SetState(State::kRolledBack));
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kApplied));
  IMG_RETURN_IF_ERROR(RemoveJournalPointer(image_path));
  IMG_RETURN_IF_ERROR(At(at_step, CommitStep::kPointerRemoved));
  return RollbackOutcome::kRolledBack;
}

}  // namespace imgfsck
