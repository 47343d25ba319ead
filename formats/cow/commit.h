// SPDX-License-Identifier: Apache-2.0
// Carries the changes of a COW image over into its backing file.
#pragma once

#include <functional>

#include "io/byte_source.h"

namespace imgfsck::cow {

// Writes every stored sector (zeros included) into the base and makes it durable, then clears the
// bitmap, durably, then gives back the data's space and restamps the header with what `base_mtime`
// answers by then. A stop before the bitmap is cleared leaves work that can be done again; a stop
// after it leaves an empty image over a merged base. Refused for images with damage that hides
// sectors. The base must hold at least the disk.
Status Commit(ByteStore& image, ByteStore& base,
              const std::function<Result<uint64_t>()>& base_mtime);

}  // namespace imgfsck::cow
