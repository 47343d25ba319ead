// SPDX-License-Identifier: Apache-2.0
// --output: the repaired image as a new file. Holes stay holes, blocks of zeros become holes; the
// file appears under its name only when it is complete and durable.
#pragma once

#include <string>
#include <vector>

#include "analyzers/check.h"
#include "io/overlay.h"

namespace imgfsck {

struct OutputResult {
  uint64_t unreadable = 0;  // bytes that the medium refused: zeros in the new file
  std::vector<std::string> notes;
};

// kExists when `path` is there already; nothing is left behind after an error or a stop.
Result<OutputResult> WriteOutput(const ByteSource& image, const std::string& path,
                                 const ProgressFn& progress = {});

// Names of backing files, parents and data files that are relative to the image's folder, and so
// mean something else when the image is written to another one.
std::vector<LinkRow> NamesThatChangeMeaning(const ImageRows& rows, const std::string& image_path,
                                            const std::string& output_path);

// Rewrites the backing name in `image`, through the format's driver, so that it names the same file
// seen from the output's folder. kUnsupported where the driver cannot.
Status RebaseNames(Overlay& image, const Format& format, const CheckOptions& check,
                   const std::string& image_path, const std::string& output_path);

}  // namespace imgfsck
