// SPDX-License-Identifier: Apache-2.0
#include "triage/names/guest_names.h"

#include <iterator>

namespace imgfsck {

std::string_view ToText(NameKind kind) {
  static constexpr std::string_view kTexts[] = {"file", "resident", "metadata", "unallocated"};
  static_assert(std::size(kTexts) == static_cast<size_t>(NameKind::kEnd));
  return kTexts[static_cast<size_t>(kind)];
}

#ifndef IMGFSCK_HAVE_TSK
#define IMGFSCK_HAVE_TSK 0
#endif
#if !IMGFSCK_HAVE_TSK
bool CanNameFiles() { return false; }

NameFacts NameRanges(const GuestDisk&, std::vector<GuestRange>) {
  NameFacts facts;
  facts.trouble = "this build is without The Sleuth Kit's library (libtsk)";
  return facts;
}
#endif

}  // namespace imgfsck
