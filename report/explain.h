// SPDX-License-Identifier: Apache-2.0
// The catalogue of problems for --explain and --list-problems, as text or JSON.
#pragma once

#include "base/text_writer.h"
#include "model/problem.h"

namespace imgfsck {

void WriteExplanation(const ProblemInfo& problem, TextWriter& out);
void WriteProblemList(TextWriter& out);      // a line each
void WriteProblemListJson(TextWriter& out);  // a JSON document a line

}  // namespace imgfsck
