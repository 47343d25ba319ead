// SPDX-License-Identifier: Apache-2.0
// Is there room for a commit? Asked before anything is written.
#pragma once

#include <string>

#include "io/overlay.h"

namespace imgfsck {

// kNoSpace, with the numbers, when the undo record or the image's growth does not fit.
Status CheckSpaceForCommit(const std::string& image_path, const std::string& undo_path,
                           const Overlay& overlay);
// The same for a copy of the whole overlay.
Status CheckSpaceForCopy(const std::string& output_path, const ByteSource& source);

}  // namespace imgfsck
