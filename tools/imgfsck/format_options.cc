// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/format_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace imgfsck {
namespace {

struct FormatOption {
  std::string_view option;
  bool given;
  std::initializer_list<std::string_view> formats;  // that it means something for
  std::string_view hint;
};

// Mending that puts every byte of the image in another place does not do so under the user's hands.
std::optional<std::string> RewritesInPlace(const ImgfsckOptions& options) {
  if (!options.output.empty() || !options.plan.empty() || options.dry_run) return std::nullopt;
  for (Problem problem : {Problem::kQcowWaste, Problem::kQcowBackingCluster}) {
    if (!options.repair_options.also_fix.contains(problem)) continue;
    return fmt::format("--fix {} writes the image anew: name the new file by --output",
                       InfoOf(problem).code);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> OptionWithoutUse(const ImgfsckOptions& options, const Format& format) {
  if (format.name == "qcow") {
    if (auto text = RewritesInPlace(options)) return text;
  }
  const RepairOptions& repair = options.repair_options;
  const FormatOption rules[] = {
      {"--profile azure", repair.check.profile == "azure", {"vpc"}, ""},
      {"--size-policy", repair.check.size_policy != "auto", {"vpc"}, ""},
      {"--donor", !options.donor.empty(), {"qcow2"}, ""},
      {"--relink", !repair.relink_parent.empty(), {"vpc", "cow"}, ""},
      {"--orphans snapshot",
       repair.orphans == OrphanPolicy::kSnapshot,
       {"qcow2"},
       "--orphans dir:PATH writes them to files"},
  };
  for (const FormatOption& rule : rules) {
    if (!rule.given || std::ranges::count(rule.formats, format.name) > 0) continue;
    std::string text =
        fmt::format("{} is not available for {} images in this version", rule.option, format.name);
    return rule.hint.empty() ? text : text + "; " + std::string(rule.hint);
  }
  return std::nullopt;
}

}  // namespace imgfsck
