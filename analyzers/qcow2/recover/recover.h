// SPDX-License-Identifier: Apache-2.0
// A header that is damaged or gone, worked out from the rest of the file. The refcount structures,
// the L1 table and the L2 tables describe each other: only under the right cluster size, at the
// right places, does everything add up. First the stored header is believed as far as possible and
// single fields are varied; where that leads nowhere, the whole file is searched. Two answers that
// are about equally good are no answer. Reads only; time and memory are bounded by the file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "analyzers/qcow2/recover/trial.h"
#include "formats/qcow2/header.h"

namespace imgfsck::qcow2 {

struct FieldChange {
  FieldSpec field;
  uint64_t before = 0, after = 0;
};
// Fields of a header of `after`'s version that differ; both at least 112 bytes, or 72 of version 2.
std::vector<FieldChange> ChangesOf(Bytes before, Bytes after);

struct Recovery {
  std::shared_ptr<PrefixSource> view;  // the file with the recovered header
  Header header;
  Layout layout;
  std::vector<FieldChange> changes;  // of the header's fields
  bool remaps = false;  // the guest's bytes are found elsewhere than by the stored header
  bool safe = false;    // it may be written without changing a byte that a guest can read today
  bool whole = false;   // nothing of the stored header was believed
  bool size_guessed = false;
  double confidence = 0;           // 0–1
  std::string evidence;            // why this header, in a sentence
  std::vector<std::string> notes;  // what could not be recovered
};

struct RecoveryResult {
  std::optional<Recovery> recovery;  // nothing: the stored header is the best there is
  std::string refusal;               // why there is none, where one was needed
};

// Cheap: whether the stored header leads to no mapping that makes sense, so that RecoverHeader()
// should be asked. Wrong values of single fields that leave the mapping readable are no reason.
bool HeaderIsUseless(const ByteSource& source, const Image& stored);

Result<RecoveryResult> RecoverHeader(const ByteSource& source, const Image& stored,
                                     const CheckOptions& options);

}  // namespace imgfsck::qcow2
