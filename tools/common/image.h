// SPDX-License-Identifier: Apache-2.0
// Opens the image that a tool was given: read-only, recognised by content.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/format.h"
#include "io/bad_ranges.h"
#include "io/file.h"

namespace imgfsck {

struct OpenedImage {
  std::string path;
  std::unique_ptr<FileSource> file;
  std::unique_ptr<BadRangeSource> with_bad_ranges;  // over `file`, when a bad map was given
  const Format* format = nullptr;
  FileIdentity identity;  // when it was opened
  bool in_use = false;    // a running program writes to it

  const ByteSource& source() const {
    return with_bad_ranges ? static_cast<const ByteSource&>(*with_bad_ranges) : *file;
  }
};

// `format_name` empty: content decides, and what no format recognises is kUnsupported, never raw.
// `opened` is called when all files are open and nothing of the image has been read.
Result<OpenedImage> OpenImage(const std::string& path, const std::string& format_name,
                              const std::string& bad_map, const std::function<void()>& opened);

// True when the file is not what it was when it was opened.
bool ChangedSince(const OpenedImage& image);

}  // namespace imgfsck
