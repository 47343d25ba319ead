// SPDX-License-Identifier: Apache-2.0
#include "triage/facts.h"

namespace imgfsck {

std::string_view ToText(RemnantOrigin origin) {
  static constexpr std::string_view kTexts[] = {"leaked", "free", "slack", "header-slack",
                                                "trailing"};
  static_assert(std::size(kTexts) == static_cast<size_t>(RemnantOrigin::kEnd));
  return kTexts[static_cast<size_t>(origin)];
}

std::string_view ToText(RemnantClass kind) {
  static constexpr std::string_view kTexts[] = {
      "data", "text", "compressed", "random", "file-system", "known-header", "table"};
  static_assert(std::size(kTexts) == static_cast<size_t>(RemnantClass::kEnd));
  return kTexts[static_cast<size_t>(kind)];
}

}  // namespace imgfsck
