// SPDX-License-Identifier: Apache-2.0
// What lies in the folder of copies (--orphans-to): a line a copy, tab-separated, with where it is
// from and what it is thought to be.
#pragma once

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

void WriteOrphanIndex(const TriageResult& result, TextWriter& out);

}  // namespace imgfsck
