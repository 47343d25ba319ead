// SPDX-License-Identifier: Apache-2.0
// One image's part of the page.
#pragma once

#include "triage/report/html_writer.h"
#include "triage/result.h"

namespace imgfsck {

void WriteBadge(const TriageResult& result, size_t index, HtmlWriter& html);
void WriteImageSection(const TriageResult& result, size_t index, HtmlWriter& html);

}  // namespace imgfsck
