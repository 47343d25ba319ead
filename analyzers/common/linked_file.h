// SPDX-License-Identifier: Apache-2.0
// A file that an image names, looked at from outside: at most one stat() of a plain local path.
// Nothing is opened; protocol, json: and device names are not followed at all.
#pragma once

#include <cstdint>
#include <string>

namespace imgfsck {

struct LinkedFile {
  enum class State {
    kNotLooked,  // not a plain local path, or the image itself has none
    kMissing,
    kPresent,
    kItself,  // the image names itself
  };
  State state = State::kNotLooked;
  std::string path;           // what was looked at
  bool regular = false;       // a regular file: size and mtime mean something
  uint64_t size = 0;          // bytes
  int64_t mtime_seconds = 0;  // Unix time
};

// What a copy without names has in the place of the name of a file that is there: of the same
// length, and always to be found.
std::string StandInName(size_t length, bool absolute);

// `name` as stored in the image (untrusted); relative names are resolved against the folder of
// `image_path`. Where that is empty, nothing is looked at.
LinkedFile LookAtLinkedFile(const std::string& image_path, const std::string& name);

}  // namespace imgfsck
