// SPDX-License-Identifier: Apache-2.0
// A verified plan as a JSON file that somebody can review and that --apply carries out, exactly or
// not at all. The file is untrusted input: its size is bounded, its hash and every pre-image are
// checked, and the image that it makes is checked like any other repair.
//
//   imgfsck-plan  1                      program      what wrote it
//   image         {name, format, size}   new-size     bytes
//   mode, findings, left, passes, lost, orphans      for the reader
//   patches       [{offset, old-length, old-sha256, new (base 64)}], ascending
//   sha256        over all bytes of the file before this member
#pragma once

#include <string>

#include "repair/engine.h"

namespace imgfsck {

inline constexpr uint64_t kLargestPlanFile = 512 * kMiB;

// kExists when `path` is there; kTooLarge when the plan has more new bytes than a plan file holds.
Status WritePlanFile(const Plan& plan, const std::string& path, const std::string& image_path,
                     RepairMode mode);

// The plan of that file for `source`. kInvalid: no sound plan file; kConflict: a pre-image, the
// length or the format differs, or the result would bring a new problem.
Result<Plan> LoadPlanFile(const std::string& path, const ByteSource& source, const Format& format,
                          const RepairKit& kit);

}  // namespace imgfsck
