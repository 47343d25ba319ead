// SPDX-License-Identifier: Apache-2.0
#include "tools/common/markdown.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

namespace imgfsck {

std::string OptionsMarkdown(const CLI::App& app, std::string_view description,
                            std::string_view footer) {
  std::string text = fmt::format("# {}\n\n{}\n\n| option | meaning |\n| --- | --- |\n",
                                 app.get_name(), description);
  for (const CLI::Option* option : app.get_options()) {
    bool takes_value = option->get_type_size() > 0 && !option->get_positional();
    std::string name = option->get_name(false, true);
    if (takes_value) name += " " + option->get_type_name();
    std::string cell;
    for (char c : name) cell += c == '|' ? "\\|" : std::string(1, c);
    text += fmt::format("| `{}` | {} |\n", cell, option->get_description());
  }
  return text + "\n" + std::string(footer) + "\n";
}

}  // namespace imgfsck
