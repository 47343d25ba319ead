// SPDX-License-Identifier: Apache-2.0
// Makes new VHDs: fixed, dynamic, and children of other disks.
#pragma once

#include "formats/driver.h"
#include "formats/format.h"
#include "io/byte_source.h"

namespace imgfsck::vhd {

std::span<const OptionHelp> CreateOptionHelp();

// Into an empty store. A child (subformat=differencing) needs backing_file, and what
// DescribeParent() says of it.
Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);

// Adds parent_uuid, parent_timestamp and backing_fmt, as the parent's bytes and modification time
// (Unix seconds) have them. A parent that is no VHD is taken as raw.
Status DescribeParent(const ByteSource& parent, int64_t mtime, CreateOptions* options);

}  // namespace imgfsck::vhd
