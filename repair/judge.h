// SPDX-License-Identifier: Apache-2.0
// Did a repair make anything worse? Compares the check before with the check after. A problem is
// new when nothing as bad was known about that place before; it is forgiven when the repair made
// structures visible that could not be examined before and did not itself write where the problem
// is.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "analyzers/check.h"
#include "base/range_set.h"

namespace imgfsck {

struct NewProblem {
  Problem problem;
  std::string sentence;  // what and where
};

// Corruptions and leaks of `after` that are new. `touched`: the host bytes that were written.
// Problems in `tolerated` are not looked at.
std::vector<NewProblem> NewProblems(const CheckReport& before, const CheckReport& after,
                                    RangeSet touched, const std::set<Problem>& tolerated);

}  // namespace imgfsck
