// SPDX-License-Identifier: Apache-2.0
// The rules over a qcow version 1 image, by family; rows are those of the format sheet, section 8.
#pragma once

#include "analyzers/check.h"
#include "analyzers/common/make_finding.h"
#include "analyzers/qcow1/state.h"

namespace imgfsck::qcow1 {

void JudgeHeader(const Image& image, Findings* findings);  // rows 1–11, 31, 33, 35
void JudgeLinks(const Image& image, const CheckOptions& options, Findings* findings);  // 32, 34
Status JudgeXen(const Image& image, Findings* findings);  // rows 36, 37
// Rows 12–20, 24, 25, 28, 29. Fills state->fates and state->space, and the report's counts.
Status JudgeTables(CheckState* state, CheckReport* report);
Status JudgeConflicts(CheckState* state, Findings* findings);      // rows 21–23, 27
Status JudgeWaste(CheckState* state, Findings* findings);          // rows 30, 38
Status JudgeStreams(const CheckState& state, Findings* findings);  // row 26, which reads payload

// A finding about a header field.
Finding HeaderFinding(Problem problem, std::string_view field, std::string detail = {});

}  // namespace imgfsck::qcow1
