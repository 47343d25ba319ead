// SPDX-License-Identifier: Apache-2.0
// What the tools do alike with a command line: read it into what was declared, or end with help,
// the version, a usage error.
#pragma once

#include <cstdio>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class App;
}

namespace imgfsck {

struct EarlyEnd {
  int exit_code = 0;
  std::string text;
};

template <class Options>
struct Parsed {
  Options options;
  std::optional<int> exit_code;  // set: print `text` (help, version, a usage error) and end
  std::string text;

  Parsed& End(EarlyEnd end) {
    exit_code = end.exit_code;
    text = std::move(end.text);
    return *this;
  }
};

EarlyEnd UsageError(std::string_view tool, std::string_view what);

// Into what `app` declares; an end when there is no more to do. Options other than `may_be_empty`
// take no empty value. --help-markdown prints `markdown`: for docs/, not for people.
std::optional<EarlyEnd> ReadArguments(CLI::App& app, std::vector<std::string> arguments,
                                      const std::function<std::string()>& markdown,
                                      std::initializer_list<std::string_view> may_be_empty = {});

// Says what a run ends with that does no more than that; its exit status.
template <class Options>
int PrintEnd(const Parsed<Options>& parsed) {
  std::string text = parsed.text + "\n";
  std::fwrite(text.data(), 1, text.size(), *parsed.exit_code == 0 ? stdout : stderr);
  return *parsed.exit_code;
}

}  // namespace imgfsck
