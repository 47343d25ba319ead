// SPDX-License-Identifier: Apache-2.0
// The run as Digital Forensics XML, valid by the DFXML working group's schema 2.0.0-beta.0. What
// that has no words for (verdicts, findings, links) stands in a namespace of our own.
#pragma once

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

void WriteDfxml(const TriageResult& result, TextWriter& out);

}  // namespace imgfsck
