// SPDX-License-Identifier: Apache-2.0
// Operations that change guest data or the disk. Each is called after Core::BeginWriting(); none
// leaves the image unsound when it fails or is cut short (see alloc.h).
#pragma once

#include "formats/qcow2/driver_core.h"

namespace imgfsck::qcow2 {

// [offset, offset + size) inside the disk.
Status WriteGuest(Core& core, uint64_t offset, Bytes bytes);
// Whole clusters, or to the end of the disk. What does not get smaller is written plain.
Status CompressGuest(Core& core, uint64_t offset, Bytes bytes);
// Reads as zeros afterwards; host clusters are kept in reserve.
Status ZeroGuest(Core& core, uint64_t offset, uint64_t length);
// The same for the whole clusters inside the range, host clusters given back. A hint: where zeros
// could only be had by writing them (version 2 over a backing file) nothing happens.
Status DiscardGuest(Core& core, uint64_t offset, uint64_t length);

Status ResizeGuest(Core& core, uint64_t size);
Status EmptyGuest(Core& core);  // every guest byte unallocated again
Status ChangeBacking(Core& core, const std::optional<BackingReference>& backing);
// Host space for every cluster of the range that has none. For a raw data file: maps it 1:1.
Status Preallocate(Core& core, uint64_t offset, uint64_t length);

// Guest bytes to where they lie, encrypted if need be.
Status WriteData(Core& core, uint64_t guest, uint64_t host, Bytes bytes);

}  // namespace imgfsck::qcow2
