// SPDX-License-Identifier: Apache-2.0
// What a file name that stands in an image would make its reader do. Names are only looked at as
// text: nothing is resolved, looked up or opened.
#pragma once

#include <string_view>
#include <vector>

#include "triage/reasons.h"

namespace imgfsck {

// The reasons against the name itself: kRefPseudo, kRefDevice, kRefNetwork, kRefAbsolute. Empty for
// a plain name below the image's own folder.
std::vector<ReasonCode> JudgeName(std::string_view name);

}  // namespace imgfsck
