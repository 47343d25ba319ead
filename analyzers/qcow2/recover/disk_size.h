// SPDX-License-Identifier: Apache-2.0
// How large the disk is, when the header does not say: from what is mapped, from snapshots, and
// from what the guest itself wrote down (partition tables, file systems).
#pragma once

#include <string>

#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

struct DiskSize {
  uint64_t bytes = 0;
  bool certain = false;  // two witnesses agree, or one that must know
  std::string evidence;  // in words
};

// `image`: tables in place, any size.
DiskSize FindDiskSize(const Image& image);

// The active L1 table maps whole tables behind the end of the disk, and no VM state explains it: no
// writer leaves an image like that, so the size is wrong.
bool MapsBehind(const Image& image, uint64_t size);

}  // namespace imgfsck::qcow2
