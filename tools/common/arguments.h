// SPDX-License-Identifier: Apache-2.0
// What every tool holds its command line to. Only for the sources that read one.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>

namespace imgfsck {

// Throws where an option's value is empty: from a script whose variable is not set, and it would be
// as if the option were not there. `may_be_empty`: names of options of which this is a value.
inline void RefuseEmptyValues(const CLI::App& app,
                              std::initializer_list<std::string> may_be_empty = {}) {
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional() || option->get_items_expected_min() == 0) continue;
    const std::string name = option->get_name();
    if (std::ranges::find(may_be_empty, name) != may_be_empty.end()) continue;
    if (std::ranges::any_of(option->results(), [](auto& value) { return value.empty(); })) {
      throw CLI::ValidationError(name, "the value is empty");
    }
  }
  for (const CLI::App* chosen : app.get_subcommands()) RefuseEmptyValues(*chosen, may_be_empty);
}

}  // namespace imgfsck
