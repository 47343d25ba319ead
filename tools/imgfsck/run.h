// SPDX-License-Identifier: Apache-2.0
// imgfsck's work on one image: check, repair, roll back, recover.
#pragma once

#include "model/database_file.h"
#include "tools/common/terminal.h"
#include "tools/imgfsck/options.h"

namespace imgfsck {

// Where results of several images meet.
struct RunContext {
  Progress& progress;
  DatabaseFile* database = nullptr;  // --db; null: none
  int64_t image_id = 1;              // in the database
};

// Does everything that the options ask for with `path`, prints the result on stdout and returns its
// exit status.
int RunOnImage(const std::string& path, const ImgfsckOptions& options, const RunContext& context);

}  // namespace imgfsck
