// SPDX-License-Identifier: Apache-2.0
#include "tools/common/markdown.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

namespace imgfsck {
namespace {

std::string Escaped(std::string_view text) {
  std::string cell;
  for (char c : text) cell += c == '|' ? "\\|" : std::string(1, c);
  return cell;
}

// "-r", "--repair[=safe|all]": the names, then what the value is.
std::string NamesOf(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) names += "-" + name + ", ";
  for (const std::string& name : option.get_lnames()) names += "--" + name + ", ";
  names.resize(names.size() - 2);
  const std::string& type = option.get_type_name();
  if (type.empty()) return names;
  return names + (type.starts_with("[=") ? "" : " ") + type;
}

std::string Table(const CLI::App& app) {
  std::string text = "| option | meaning |\n| --- | --- |\n";
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) continue;
    text += fmt::format("| `{}` | {} |\n", Escaped(NamesOf(*option)),
                        Escaped(option->get_description()));
  }
  return text;
}

}  // namespace

std::string OptionsMarkdown(const CLI::App& app, std::string_view usage,
                            std::string_view description, std::string_view footer) {
  std::string text = fmt::format("# {0}\n\n    {0} {1}\n\n{2}\n\n{3}", app.get_name(), usage,
                                 description, Table(app));
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    std::string words;
    for (const CLI::Option* option : command->get_options()) {
      if (option->get_positional()) words += " " + option->get_type_name();
    }
    text += fmt::format("\n## {0} {1}\n\n    {0} {1} [options]{2}\n\n{3}.\n\n{4}", app.get_name(),
                        command->get_name(), words, command->get_description(), Table(*command));
  }
  return text + "\n" + std::string(footer) + "\n";
}

}  // namespace imgfsck
