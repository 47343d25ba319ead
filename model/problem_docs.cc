// SPDX-License-Identifier: Apache-2.0
#include "model/problem_docs.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>

#include "model/problem.h"

namespace imgfsck {
namespace {

struct Group {
  std::string_view prefix;
  std::string_view title;
};

constexpr Group kGroups[] = {
    {"qcow2-", "qcow2 (versions 2 and 3)"},
    {"vhd-", "VHD"},
    {"qcow-", "QCOW version 1"},
    {"cow-", "COW (QEMU and User-Mode Linux)"},
    {"image-", "Any image"},
    {"chain-", "Files that an image builds on"},
};

constexpr std::string_view kIntroduction = R"(# Problems

<!-- Generated from model/problems.def; the unit test of the registry says how to renew it. -->

Everything that imgfsck can find, with what a repair does and what it can cost.
`imgfsck --explain CODE` shows one row, `imgfsck --list-problems` all of them. Codes never change
their meaning and are never renamed.

**Severity.** A *corruption* is damage: the guest's data is wrong or at risk, or QEMU refuses to
open the image. A *leak* is space that is taken and not used. A *warning* is something to look at.
An *info* is legal and is never repaired.

**Repair** names the gentlest mode that mends it: *safe* (`--repair=safe`) changes no guest byte
that can be read today, *all* (`--repair=all`) may drop a mapping or pick one of two claimants,
*none* means that nothing is done about it unasked. A single case may differ from its row where the
evidence says so.

**Guest** is what the guest gets at the place concerned until it is repaired: *wrong* data, *stale*
(older) data, *zero*, *unreadable*, or *none*: its data is not affected.
)";

std::string Heading(const Group& group) {
  return fmt::format(
      "\n## {}\n\n"
      "| code | severity | repair | guest | what is wrong | what a repair does | what it can cost "
      "|\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n",
      group.title);
}

}  // namespace

std::string ProblemsMarkdown() {
  std::string page(kIntroduction);
  for (const Group& group : kGroups) {
    page += Heading(group);
    for (const ProblemInfo& info : AllProblems()) {
      if (!info.code.starts_with(group.prefix)) continue;
      fmt::format_to(std::back_inserter(page), "| `{}` | {} | {} | {} | {} | {} | {} |\n",
                     info.code, ToText(info.severity), ToText(info.repair), ToText(info.effect),
                     info.what, info.mend, info.cost);
    }
  }
  return page;
}

}  // namespace imgfsck
