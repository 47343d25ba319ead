// SPDX-License-Identifier: Apache-2.0
// A tool's options as a page of documentation, from their one declaration.
#pragma once

#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace imgfsck {

// `usage` stands behind the tool's name: "[options] IMAGE...". Subcommands follow, each with its
// own table.
std::string OptionsMarkdown(const CLI::App& app, std::string_view usage,
                            std::string_view description, std::string_view footer);

}  // namespace imgfsck
