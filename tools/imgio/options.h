// SPDX-License-Identifier: Apache-2.0
// The options of imgio, read from the command line. Names are qemu-img's where a thing is the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/common/command_line.h"

namespace imgfsck {

// One structure for all commands: each declares the options that it has.
struct ImgioOptions {
  std::string command;                // "create", "info" …
  std::string action;                 // of snapshot and bitmap: "list", "create" …
  std::vector<std::string> words;     // file and other names, in order
  std::vector<uint64_t> sizes;        // positional sizes and offsets, in order
  char sign = 0;                      // of the size: '+', '-', or 0
  std::string format, second_format;  // of the image (source); of the other one
  std::vector<std::string> set;       // -o key=value,…
  std::string backing, backing_format;
  std::string snapshot, password_file, size_policy = "auto";
  std::string from, to, output = "human", lost_map, merge_source;
  std::optional<uint64_t> offset, length, granularity, sparse;
  std::optional<uint8_t> pattern;
  unsigned threads = 0;  // 0: all cores
  bool compressed = false, quiet = false, progress = false, no_chain = false, salvage = false,
       strict = false, force = false, existing = false, shrink = false, keep = false,
       unsafe = false, disabled = false, share = false, durable = false, no_sandbox = false;
};

using ParsedImgio = Parsed<ImgioOptions>;

ParsedImgio ParseImgio(std::vector<std::string> arguments);

}  // namespace imgfsck
