// SPDX-License-Identifier: Apache-2.0
// Guest I/O on raw images.
#pragma once

#include "formats/driver.h"
#include "formats/format.h"

namespace imgfsck::raw {

Result<std::unique_ptr<Driver>> OpenDriver(const ByteSource& source, ByteStore* store,
                                           const OpenOptions& options);
Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);

}  // namespace imgfsck::raw
