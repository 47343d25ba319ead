// SPDX-License-Identifier: Apache-2.0
// The options of imgdump, read from the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/query.h"

namespace imgfsck {

struct ImgdumpOptions {
  std::string image, format, bad_map, db, snapshot, hex, metadata;
  std::vector<std::string> queries;
  QueryMode mode = QueryMode::kTable;
  bool json = false, sql = false, map = false, deep = false, redact = false, progress = false;
  unsigned threads = 0;
};

struct ParsedImgdump {
  ImgdumpOptions options;
  std::optional<int> exit_code;  // set: print `text` and end
  std::string text;
};

ParsedImgdump ParseImgdump(std::vector<std::string> arguments);
std::string ImgdumpOptionsMarkdown();  // docs/cli-imgdump.md

}  // namespace imgfsck
