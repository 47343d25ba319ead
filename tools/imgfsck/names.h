// SPDX-License-Identifier: Apache-2.0
// --names: what of an image's findings is asked of the process that knows guests' file systems.
#pragma once

#include "report/guest_names.h"
#include "report/result.h"
#include "tools/imgfsck/options.h"
#include "triage/names/name_server.h"

namespace imgfsck {

// The names for everything that the result lists.
GuestNames NamesFor(const ImageResult& result, const ImgfsckOptions& options, NameServer& server);

}  // namespace imgfsck
