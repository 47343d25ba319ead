// SPDX-License-Identifier: Apache-2.0
// How a differencing VHD names its parent: the name in the dynamic header and up to eight locators.
// All of it is untrusted text; nothing here opens a file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/vhd/image.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {

inline constexpr uint64_t kMaxLocatorBytes = 64 * kKiB;  // longer payloads are not read

struct ParentPointer {
  size_t slot = 0;  // in the header
  Locator locator;
  bool in_file = false;  // the payload lies inside the file and is not absurdly long
  DecodedText text;
  std::string path;  // for this host; may be empty
};
// The locators that are in use, by slot: of the header to go by, or of another one.
std::vector<ParentPointer> ParentPointers(const Image& image);
std::vector<ParentPointer> ParentPointers(const Image& image, const DynHeader& header);

DecodedText ParentName(const Image& image);
DecodedText ParentName(const DynHeader& header);

// Paths under which the parent may be found, best first, each once: relative ones count from the
// child's directory (sheet §7).
std::vector<std::string> ParentCandidates(const Image& image);

// Whether `candidate` is the disk that the child was made from.
enum class ParentFit { kNotAVhd, kOtherId, kFits, kRawFits };
ParentFit FitOfParent(const Image& child, const ByteSource& candidate);

}  // namespace imgfsck::vhd
