// SPDX-License-Identifier: Apache-2.0
// imgfsck's report for people: short and plain, what to do last. Whatever an image says passes
// through Printable().
#pragma once

#include "base/text_writer.h"
#include "report/options.h"
#include "report/result.h"

namespace imgfsck {

void WriteImageText(const ImageResult& result, const ReportOptions& options, TextWriter& out);

}  // namespace imgfsck
