// SPDX-License-Identifier: Apache-2.0
// The rules over a VHD, by family; the rows are those of the format sheet, section 10. Each adds
// findings and changes nothing else, but the walk over the table, which fills the state.
#pragma once

#include "analyzers/check.h"
#include "analyzers/vhd/state.h"
#include "model/finding.h"

namespace imgfsck::vhd {

void JudgeFooters(const Image& image, const CheckOptions& options, Findings* out);  // 1–12
void JudgeFooterFields(const Image& image, Findings* out);  // 13–19, 21–24
void JudgeSizes(const Image& image, Findings* out);         // 20, 25–31
void JudgeHeader(const Image& image, Findings* out);        // 32–43
Status WalkTable(const CheckOptions& options, CheckState* state, CheckReport* report);  // 44–51, 54
Status JudgeGaps(const CheckOptions& options, CheckState* state, Findings* out);        // 53
Status JudgeBatmap(const Image& image, Findings* out);                             // 60–64, 66
void JudgeLocators(const Image& image, Findings* out);                             // 67–74, 77
void JudgeParent(const Image& image, const CheckOptions& options, Findings* out);  // 75–82
Status JudgeBitmaps(const CheckState& state, const CheckOptions& options, CheckReport* report);
// 52, 55–59, 65: deep
void JudgeAzure(const Image& image, Findings* out);  // --profile azure

// A finding about `length` bytes of a structure that begins at `offset`.
Finding At(Problem problem, std::string_view structure, uint64_t offset, uint64_t length,
           std::string detail = {});

// Where the footer that is gone by stands.
inline uint64_t FooterAt(const Image& image) {
  return image.footer_from.origin == Origin::kCopy ? 0 : image.trailing.offset;
}

}  // namespace imgfsck::vhd
