// SPDX-License-Identifier: Apache-2.0
// Which options mean something for which format. An option that would do nothing is refused, never
// ignored.
#pragma once

#include <optional>
#include <string>

#include "formats/format.h"
#include "tools/imgfsck/options.h"

namespace imgfsck {

// A sentence on the first option given that does nothing for images of this format.
std::optional<std::string> OptionWithoutUse(const ImgfsckOptions& options, const Format& format);

}  // namespace imgfsck
