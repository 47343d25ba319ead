// SPDX-License-Identifier: Apache-2.0
// The options of imgfsck, read from the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/sandbox.h"
#include "repair/pass.h"
#include "report/result.h"
#include "tools/common/command_line.h"

namespace imgfsck {

struct ImgfsckOptions {
  std::vector<std::string> images;
  std::string format;
  bool repair = false;
  bool dry_run = false;
  RepairOptions repair_options;  // mode, --fix, --orphans …; `check` holds the check's
  std::string output, undo, plan, apply, rollback, donor, lost_map, password_file, db, report,
      bad_map, explain;
  bool no_undo = false, recover = false, json = false, list_problems = false, exit_zero = false,
       progress = false, no_sandbox = false, rebase_names = false, names = false;
  Severity fail_on = Severity::kLeak;
  ExitStyle exit_style = ExitStyle::kFsck;
  size_t max_findings = 10000;
  int verbosity = 0;  // -1 quiet … 1

  bool mends() const { return repair || !apply.empty(); }
  bool writes_image() const { return mends() && !dry_run && plan.empty() && output.empty(); }
  // What a filter over system calls has to let through. A repair computed on the side may need a
  // temporary file, too.
  SandboxLevel sandbox() const;
};

using ParsedImgfsck = Parsed<ImgfsckOptions>;

ParsedImgfsck ParseImgfsck(std::vector<std::string> arguments);
std::string ImgfsckOptionsMarkdown();  // docs/cli-imgfsck.md

}  // namespace imgfsck
