// SPDX-License-Identifier: Apache-2.0
// imgtriage's report for machines: JSON Lines, a file a line, images and others, by path.
#pragma once

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

void WriteTriageJson(const TriageResult& result, TextWriter& out);

}  // namespace imgfsck
