// SPDX-License-Identifier: Apache-2.0
// What overlay.cc and overlay_patches.cc share, and nobody else includes.
#pragma once

#include "io/overlay.h"
#include "io/page_store.h"

namespace imgfsck {

struct Overlay::Impl {
  explicit Impl(const OverlayOptions& options)
      : pages(options.memory_limit, options.spill_directory) {}
  PageStore pages;
  uint64_t base_counts = 0;  // bytes of the base that are still seen
};

}  // namespace imgfsck
