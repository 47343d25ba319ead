// SPDX-License-Identifier: Apache-2.0
// The rules over a COW image, by family; rows are those of the format sheet, section 8.
#pragma once

#include "analyzers/check.h"
#include "analyzers/common/make_finding.h"
#include "analyzers/cow/state.h"

namespace imgfsck::cow {

void JudgeHeader(const Image& image, Findings* findings);  // rows 1–18
// Rows 29–31, 33, 34. Fills state->base and, with --chain, state->base_bytes.
void JudgeLinks(CheckState* state, const CheckOptions& options, Findings* findings);
// Row 35. Fills state->older.
void JudgeUpgrade(CheckState* state, Findings* findings);
// Rows 19–23, 27, 28. Fills the report's counts.
Status JudgeBitmap(const CheckState& state, CheckReport* report);
// Rows 24–26, 32, which read payload, some of them the base's too.
Status JudgeSectors(const CheckState& state, Findings* findings);

}  // namespace imgfsck::cow
