// SPDX-License-Identifier: Apache-2.0
// The findings' part of the text report: a block for each kind, a line for each place.
#pragma once

#include <vector>

#include "base/text_writer.h"
#include "model/finding.h"
#include "report/options.h"
#include "report/words.h"

namespace imgfsck {

// `findings` as FindingsToList() sorts them; `left` has the true totals of those not fixed.
void WriteFindingsText(const std::vector<Finding>& findings, const Findings& left,
                       const LayerNames& names, const ReportOptions& options, TextWriter& out);

}  // namespace imgfsck
