// SPDX-License-Identifier: Apache-2.0
// A copy of an image to send to somebody: all metadata at its place, guest data left out as holes,
// so that a check finds the same in it. Tables that nothing refers to any more are metadata, too;
// key material and compressed payload are not. Made as a source in memory: whoever asked for it
// writes it (repair/output.h). The image is only read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "analyzers/check.h"
#include "extract/kept_bytes.h"

namespace imgfsck {

struct MetadataCopyOptions {
  std::string path;     // of the image
  bool redact = false;  // names and paths become x
  unsigned threads = 0;
  ProgressFn progress;
};

struct MetadataCopy {
  std::unique_ptr<KeptBytes> bytes;
  std::vector<std::string> notes;  // sentences for whoever asked
};

// kUnsupported for a format that has no metadata.
Result<MetadataCopy> MakeMetadataCopy(const ByteSource& source, const Format& format,
                                      const MetadataCopyOptions& options);

}  // namespace imgfsck
