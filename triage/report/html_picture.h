// SPDX-License-Identifier: Apache-2.0
// A picture of where things lie (triage/picture.h) as SVG: the cells as an embedded PNG, the axes
// as text, and the numbers in a table.
#pragma once

#include <string_view>

#include "triage/picture.h"
#include "triage/report/html_writer.h"

namespace imgfsck {

void WritePicture(const Picture& picture, std::string_view title, HtmlWriter& html);

}  // namespace imgfsck
