// SPDX-License-Identifier: Apache-2.0
#include "tools/common/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/text.h"
#include "tools/common/exit_codes.h"

namespace imgfsck {
namespace {

// Throws where an option's value is empty: from a script whose variable is not set, and it would be
// as if the option were not there.
void RefuseEmptyValues(const CLI::App& app, std::initializer_list<std::string_view> may_be_empty) {
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

}  // namespace

EarlyEnd UsageError(std::string_view tool, std::string_view what) {
  return {kExitUsage,
          fmt::format("{}: {}\n{} --help lists the options", tool, Printable(what), tool)};
}

std::optional<EarlyEnd> ReadArguments(CLI::App& app, std::vector<std::string> arguments,
                                      const std::function<std::string()>& markdown,
                                      std::initializer_list<std::string_view> may_be_empty) {
  if (arguments.size() == 1 && arguments[0] == "--help-markdown") {
    return EarlyEnd{kExitClean, markdown()};
  }
  std::ranges::reverse(arguments);
  try {
    app.parse(arguments);
    RefuseEmptyValues(app, may_be_empty);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    return EarlyEnd{kExitClean, chosen.empty() ? app.help() : chosen.front()->help()};
  } catch (const CLI::CallForVersion&) {
    return EarlyEnd{kExitClean, fmt::format("{} {}", app.get_name(), IMGFSCK_VERSION)};
  } catch (const CLI::ParseError& error) {
    return UsageError(app.get_name(), error.what());
  }
  return std::nullopt;
}

}  // namespace imgfsck
