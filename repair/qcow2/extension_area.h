// SPDX-License-Identifier: Apache-2.0
// Rewrites the header's extension area: all records that the keeper accepts, in their order, then
// END, then zeros up to the backing file's name or the end of what the area took before.
#pragma once

#include <functional>

#include "formats/qcow2/header.h"

namespace imgfsck::qcow2 {

// `cluster`: the first cluster, changed in place; `area` was parsed from it.
void RewriteExtensions(const ExtensionArea& area, MutableBytes cluster,
                       const std::function<bool(const Extension&)>& keep);

}  // namespace imgfsck::qcow2
