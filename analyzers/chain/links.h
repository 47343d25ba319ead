// SPDX-License-Identifier: Apache-2.0
// --chain: follows the files that an image names, all the way down, read-only and through the gate.
// Judges the links, not what is in the files: those are checked as images of their own. The parents
// of a VHD are the business of its own check, which has an id to tell them by.
#pragma once

#include "analyzers/check.h"

namespace imgfsck {

// Adds to the findings of `report`, whose rows and path (in `options`) say where to begin, and
// lists the images found below, the nearest first; raw ones, in which nothing can be wrong, are
// left out.
Status JudgeChain(const CheckOptions& options, CheckReport* report);

}  // namespace imgfsck
