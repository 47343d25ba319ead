// SPDX-License-Identifier: Apache-2.0
// The options of imgdump, read from the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/sandbox.h"
#include "model/query.h"
#include "tools/common/command_line.h"

namespace imgfsck {

struct ImgdumpOptions {
  std::string image, format, bad_map, db, snapshot, hex, metadata, diff, diff_snapshot, diff_format;
  std::vector<std::string> queries;
  QueryMode mode = QueryMode::kTable;
  bool json = false, sql = false, map = false, deep = false, redact = false, progress = false,
       no_sandbox = false, chain = false, names = false;
  unsigned threads = 0;

  // What a filter over system calls has to let through. The database that answers queries may need
  // temporary files.
  SandboxLevel sandbox() const {
    if (no_sandbox) return SandboxLevel::kNone;
    const bool writes = !db.empty() || !metadata.empty() || !queries.empty() || sql;
    if (!diff.empty() || chain) return SandboxLevel::kReadFiles;  // and their backing files
    return writes ? SandboxLevel::kWriteFiles : SandboxLevel::kSealed;
  }
};

using ParsedImgdump = Parsed<ImgdumpOptions>;

ParsedImgdump ParseImgdump(std::vector<std::string> arguments);
std::string ImgdumpOptionsMarkdown();  // docs/cli-imgdump.md

}  // namespace imgfsck
