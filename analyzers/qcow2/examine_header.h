// SPDX-License-Identifier: Apache-2.0
// Before anything else is checked: can the stored header be true? If it contradicts the tables, a
// better one is looked for (recover/recover.h), and where nobody could open the image with the
// stored one, the check goes on with the better one.
#pragma once

#include "analyzers/qcow2/recover/recover.h"
#include "model/finding.h"

namespace imgfsck::qcow2 {

struct HeaderVerdict {
  std::shared_ptr<Image> image;  // to be checked; keeps alive what it refers to, but not the source
  std::shared_ptr<const Recovery> recovery;
  bool reconstructed = false;   // *image has the recovered header, not the stored one
  std::vector<Finding> stored;  // what is wrong with the stored header, where that is not *image's
  std::string refusal;          // why nothing was recovered, where something was missing
};

Result<HeaderVerdict> ExamineHeader(const ByteSource& source, const CheckOptions& options);

// To what was found in *verdict.image: findings about the stored header, and for every field that
// the recovery would change, why and by what kind of repair.
void AddToHeaderFindings(const HeaderVerdict& verdict, Findings* findings);

}  // namespace imgfsck::qcow2
