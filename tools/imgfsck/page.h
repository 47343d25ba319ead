// SPDX-License-Identifier: Apache-2.0
// The HTML page of the images that were checked (--report). It is made in processes of their own,
// as imgtriage does, and says of the images what is so by then: after a repair, what is left.
#pragma once

#include "base/result.h"
#include "tools/imgfsck/options.h"

namespace imgfsck {

// Fails when the page's file is there already; before hours of work.
Status CheckPagePath(const ImgfsckOptions& options);
Status WritePage(const ImgfsckOptions& options);

}  // namespace imgfsck
