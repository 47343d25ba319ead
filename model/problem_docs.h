// SPDX-License-Identifier: Apache-2.0
// The problem registry as a page for people. docs/problems.md is this text, checked in; a test
// keeps the two equal.
#pragma once

#include <string>

namespace imgfsck {

std::string ProblemsMarkdown();

}  // namespace imgfsck
