// SPDX-License-Identifier: Apache-2.0
// imgfsck's work on one image: check, repair, roll back, recover.
#pragma once

#include "model/database_file.h"
#include "tools/common/terminal.h"
#include "tools/imgfsck/options.h"

namespace imgfsck {

// Does everything that the options ask for with `path`, prints the result on stdout and returns its
// exit status.
int RunOnImage(const std::string& path, const ImgfsckOptions& options, Progress& progress,
               DatabaseFile* database);

}  // namespace imgfsck
