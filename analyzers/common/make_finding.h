// SPDX-License-Identifier: Apache-2.0
// The usual beginning of a finding.
#pragma once

#include <string>
#include <utility>

#include "model/finding.h"

namespace imgfsck {

inline Finding MakeFinding(Problem problem, std::string structure) {
  Finding finding;
  finding.problem = problem;
  finding.structure = std::move(structure);
  return finding;
}

}  // namespace imgfsck
