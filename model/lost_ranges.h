// SPDX-License-Identifier: Apache-2.0
// What findings mean for the guest: which bytes of the disk, and of snapshots, do not read as they
// were written. Exact where a finding knows its range; a whole disk where it cannot be opened.
#pragma once

#include <string>
#include <vector>

#include "model/finding.h"
#include "model/rows.h"

namespace imgfsck {

struct LostPiece {
  std::string layer;  // "active" or a snapshot's id
  GuestRange guest;
  Effect effect = Effect::kNone;
  bool whole = false;  // a structure that the whole disk hangs on, not a range of its own
  friend bool operator==(const LostPiece&, const LostPiece&) = default;
};

// In the findings' order; pieces may overlap. `rows` of the same image may be null: then nothing is
// known of snapshots. `virtual_size`: of the active disk, where pieces are cut.
std::vector<LostPiece> LostPieces(const Findings& findings, const ImageRows* rows,
                                  uint64_t virtual_size);

// Some findings that concern the guest were only counted: the pieces are not all.
bool LostPiecesIncomplete(const Findings& findings);

}  // namespace imgfsck
