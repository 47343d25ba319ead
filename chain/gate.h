// SPDX-License-Identifier: Apache-2.0
// Decides which of the files that an image names may be opened, and where they are. Such names are
// untrusted: only plain local files pass, no protocol, no json: description, no device.
#pragma once

#include <string>

#include "base/result.h"
#include "io/file.h"

namespace imgfsck {

inline constexpr size_t kMostLayers = 128;  // of a chain of backing files

// The path that `name`, stored in the image at `image_path`, stands for: relative names begin in
// the image's own directory. kUnsupported for anything but a path.
Result<std::string> ResolveBackingName(const std::string& image_path, const std::string& name);
// The same for an external data file, whose relative name QEMU looks up in the current directory.
Result<std::string> ResolveDataFileName(const std::string& name);

// Opens what such a name led to; kInvalid for what is no regular file.
Result<std::unique_ptr<FileSource>> OpenNamed(const std::string& path);
Result<std::unique_ptr<FileStore>> OpenNamedForWriting(const std::string& path);

}  // namespace imgfsck
