// SPDX-License-Identifier: Apache-2.0
// Makes the patches of a plan true, all or none: undo record durable, journal pointer durable, then
// the patches, then the record says "applied", then the pointer goes away. A crash at any
// instruction leaves the old image, the new one, or one that Recover() finishes. Also the ways
// back: Rollback().
//
// The commit point is the durable pointer: a stop signal before it ends the commit with nothing
// written, after it the commit is finished.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "io/file.h"
#include "io/overlay.h"
#include "io/undo_record.h"

namespace imgfsck {

// After each of these the machine may stop; tests do so by returning an error from `at_step`.
enum class CommitStep {
  kLocked,          // the image is ours, nothing is written
  kRecordDurable,   // the undo record is complete
  kPointerDurable,  // the commit point
  kPatched,         // the image is new and durable
  kApplied,         // the record says so
  kPointerRemoved,
};

struct CommitOptions {
  std::string undo_path;                      // empty: beside the image, under the first free name
  bool keep_undo = true;                      // false: the record is removed in the end
  std::function<Status(CommitStep)> at_step;  // for tests
};

struct CommitResult {
  std::string undo_path;  // empty when it was not kept
  std::vector<std::string> notes;
};

// What the image was when it was checked; nobody may have touched it since.
struct CheckedState {
  FileIdentity identity;
  std::string patch_hash;  // Plan::patch_hash
};

// `image_path` is the file that the overlay's base reads. kConflict: it changed since the check;
// kLocked: somebody holds it; kNoSpace: with nothing written, or everything put back.
Result<CommitResult> Commit(const std::string& image_path, const Overlay& overlay,
                            const CheckedState& checked, const CommitOptions& options);

// The same steps on a store that is already opened and locked.
Result<CommitResult> CommitTo(ByteStore& image, const std::string& image_path,
                              const Overlay& overlay, const CommitOptions& options);

// What an interrupted repair left: the record's path, nothing when there was none.
Result<std::optional<std::string>> InterruptedRepair(const std::string& image_path);

enum class RecoverOutcome { kNothingToDo, kFinished };
// Finishes what was interrupted. `undo_path` (may be empty) names the record where no pointer could
// be written. kConflict: somebody else changed the image since; nothing is written then.
Result<RecoverOutcome> Recover(const std::string& image_path, const std::string& undo_path);
Result<RecoverOutcome> RecoverTo(ByteStore& image, const std::string& image_path,
                                 const std::string& undo_path);

enum class RollbackOutcome { kNothingToDo, kRolledBack };
// Puts the image back byte for byte, length included. kConflict unless its length and every byte
// that the repair wrote are as the repair left them.
Result<RollbackOutcome> Rollback(const std::string& image_path, const std::string& undo_path);
Result<RollbackOutcome> RollbackTo(ByteStore& image, const std::string& image_path,
                                   const std::string& undo_path,
                                   const std::function<Status(CommitStep)>& at_step = {});

}  // namespace imgfsck
