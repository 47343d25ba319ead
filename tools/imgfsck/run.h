// SPDX-License-Identifier: Apache-2.0
// imgfsck's work on one image: check, repair, roll back, recover.
#pragma once

#include "model/database_file.h"
#include "tools/common/terminal.h"
#include "tools/imgfsck/options.h"
#include "triage/names/name_server.h"
#include "triage/report/name_tables.h"

namespace imgfsck {

// Where results of several images meet.
struct RunContext {
  Progress& progress;
  DatabaseFile* database = nullptr;   // --db; null: none
  int64_t image_id = 1;               // in the database
  int64_t next_id = 2;                // of an image that the one at hand leads to
  bool seal = false;                  // open nothing more once the image is open
  NameServer* names = nullptr;        // --names; null: none
  NameTables* name_tables = nullptr;  // --names with --db

  // Descriptors that a filter lets be written to, besides the standard ones.
  int extra_output() const { return names == nullptr ? -1 : names->fd(); }
};

// Does everything that the options ask for with `path`, prints the result on stdout and returns its
// exit status; with --chain the same for the checks of all the images below.
int RunOnImage(const std::string& path, const ImgfsckOptions& options, RunContext& context);

}  // namespace imgfsck
