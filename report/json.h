// SPDX-License-Identifier: Apache-2.0
// imgfsck's report for machines: one JSON document an image, on one line. Every key of
// `qemu-img check --output=json` with its meaning, and ours. Invalid UTF-8 becomes U+FFFD.
#pragma once

#include "base/text_writer.h"
#include "report/options.h"
#include "report/result.h"

namespace imgfsck {

void WriteImageJson(const ImageResult& result, const ReportOptions& options, TextWriter& out);

}  // namespace imgfsck
