// SPDX-License-Identifier: Apache-2.0
// The run as one HTML page that needs nothing else: no network, no script. What to look at first
// stands first. Everything that comes from files or images is escaped, and a content security
// policy forbids the page to load or run anything in any case.
#pragma once

#include "base/text_writer.h"
#include "triage/result.h"

namespace imgfsck {

// The page of one image (imgfsck --report) has no overview.
void WriteHtml(const TriageResult& result, bool one_image, TextWriter& out);

}  // namespace imgfsck
